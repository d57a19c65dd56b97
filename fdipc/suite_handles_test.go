package fdipc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

func testManyHandles(t *testing.T, join joiner) {
	const n = 600 // more than the kernel passes at once
	got := make(chan int, 1)
	var a, b side
	ca, cb := a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		for i, h := range f.Handles {
			if id := readHandle(t, h); id != fmt.Sprint(i) || h.Name() != "n"+id {
				t.Errorf("handle %d is %q, called %q", i, id, h.Name())
			}
		}
		got <- len(f.Handles)
	})
	ca.Credits, cb.Credits = n, n
	start(t, join, &a, &b, ca, cb)
	hs := make([]*fdipc.Handle, n)
	for i := range hs {
		hs[i] = pipeHandle(t, fmt.Sprint(i)).Named(fmt.Sprint("n", i))
	}
	a.send(t, &fdipc.Frame{Kind: kind, Handles: hs, Payload: []byte("x")})
	if g := wait(t, "frame", got); g != n {
		t.Errorf("%d handles arrived", g)
	}
	for range n {
		if o := wait(t, "outcome", a.outcomes); o.o != fdipc.Claimed {
			t.Fatal(o.o)
		}
	}
}

func testClaimed(t *testing.T, join joiner) {
	got := make(chan string, 1)
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
		if err := errors.Join(f.Handles[0].Claim(), f.Handles[0].Claim()); err != nil {
			t.Errorf("claiming twice: %v", err)
		}
		f.Handles[0].Refuse(99) // too late, no effect
		got <- readHandle(t, f.Handles[0])
		if _, err := f.Handles[0].File(); !errors.Is(err, fdipc.ErrHandleUsed) {
			t.Errorf("second conversion: %v", err)
		}
	})
	h := pipeHandle(t, "mine")
	h.Tag = "tag"
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	if id := wait(t, "handle", got); id != "mine" {
		t.Errorf("read %q", id)
	}
	o := wait(t, "outcome", a.outcomes)
	if o.h != h || o.o != fdipc.Claimed || o.h.Tag != "tag" {
		t.Errorf("%v", o)
	}
	if st := a.Stats(); st.Offered != 1 || st.Claimed != 1 || st.Outstanding != 0 {
		t.Errorf("%+v", st)
	}
}

func testRefused(t *testing.T, join joiner) {
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
		f.Refuse(42)
		if err := f.Handles[0].Claim(); !errors.Is(err, fdipc.ErrHandleUsed) {
			t.Errorf("claim after refusal: %v", err)
		}
	})
	h := pipeHandle(t, "back")
	for range 3 { // it can be offered again
		a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
		o := wait(t, "outcome", a.outcomes)
		if o.h != h || o.o != fdipc.Refused || h.Reason() != 42 {
			t.Fatalf("%v, reason %d", o, h.Reason())
		}
	}
	if id := readHandle(t, h); id != "back" {
		t.Errorf("read %q", id)
	}
}

// testResolvedAt: the sender looks when it has occasion to, but the moment is the peer's.
func testResolvedAt(t *testing.T, join joiner) {
	type span struct{ before, after, said time.Time }
	did := make(chan span, 1)
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
		s := span{before: time.Now().Round(0)} // as the clock of the machine has it
		if f.Target == uint64(fdipc.Claimed) {
			_ = readHandle(t, f.Handles[0])
		} else {
			f.Refuse(42)
		}
		s.after = time.Now()
		s.said = f.Handles[0].ResolvedAt()
		did <- s
	})
	for _, o := range []fdipc.Outcome{fdipc.Claimed, fdipc.Refused} {
		for _, traced := range []bool{true, false} {
			h := pipeHandle(t, "mine")
			if traced {
				h.Trace[0] = 1
			}
			a.send(t, &fdipc.Frame{Kind: kind, Target: uint64(o), Handles: []*fdipc.Handle{h}})
			s := wait(t, "answer", did)
			if got := wait(t, "outcome", a.outcomes); got.o != o {
				t.Fatal(got.o)
			}
			at := h.ResolvedAt()
			if traced && (at.Before(s.before) || at.After(s.after)) || !traced && !at.IsZero() || !at.Equal(s.said) {
				t.Errorf("%v, traced %v: resolved at %v, it was between %v and %v, and %v on the other side", o, traced, at, s.before, s.after, s.said)
			}
			_ = h.Close()
		}
	}
}

func testReturnedOnDeadline(t *testing.T, join joiner) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	ca, cb := a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] })
	ca.ClaimTimeout = 20 * time.Millisecond
	start(t, join, &a, &b, ca, cb)
	h := pipeHandle(t, "late")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	if o := wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
		t.Fatalf("%v", o)
	}
	if a.Credit() != 0 || a.Stats().Stalls != 1 {
		t.Errorf("credit %d, %+v", a.Credit(), a.Stats())
	}
	late := wait(t, "handle", held)
	if err := late.Claim(); !errors.Is(err, fdipc.ErrRevoked) {
		t.Errorf("late claim: %v", err)
	}
	// The attempt is the sign of life.
	if a.Credit() == 0 {
		t.Errorf("no credit: %+v", a.Stats())
	}
	if id := readHandle(t, h); id != "late" {
		t.Errorf("read %q", id)
	}
	if st := a.Stats(); st.Revoked != 1 || st.Stalls != 1 {
		t.Errorf("%+v", st)
	}
}

func testReturnedOnClose(t *testing.T, join joiner) {
	a, _, held := holding(t, join)
	h := pipeHandle(t, "kept")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	theirs := wait(t, "handle", held)
	a.Close()
	if o := wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
		t.Fatalf("%v", o)
	}
	if err := theirs.Claim(); !errors.Is(err, fdipc.ErrRevoked) {
		t.Errorf("claim: %v", err)
	}
	if id := readHandle(t, h); id != "kept" {
		t.Errorf("read %q", id)
	}
}

func testReturnedOnPeerClose(t *testing.T, join joiner) {
	a, b, held := holding(t, join)
	h := pipeHandle(t, "kept")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	theirs := wait(t, "handle", held)
	b.Close()
	if o := wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
		t.Fatalf("%v", o)
	}
	theirs.Close()
	if id := readHandle(t, h); id != "kept" {
		t.Errorf("read %q", id)
	}
}

// Without a deadline nothing is taken back from a slow peer.
func testNoDeadline(t *testing.T, join joiner) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	ca, cb := a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] })
	start(t, join, &a, &b, ca, cb)
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "slow")}})
	if id := readHandle(t, wait(t, "handle", held)); id != "slow" {
		t.Errorf("read %q", id)
	}
	if o := wait(t, "outcome", a.outcomes); o.o != fdipc.Claimed {
		t.Error(o.o)
	}
}

// When the peer is gone, and known to be dead, everything it had not claimed comes back.
func testPeerGone(t *testing.T, join joiner) {
	a, b, held := holding(t, join)
	h := pipeHandle(t, "kept")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	theirs := wait(t, "handle", held)
	b.Close()
	a.PeerGone()
	if o := wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
		t.Fatalf("%v", o)
	}
	if err := theirs.Claim(); err == nil {
		t.Error("a Conn that was closed has claimed")
	}
	if id := readHandle(t, h); id != "kept" {
		t.Errorf("read %q", id)
	}
}

// A claim outlives the Conn: the table is still there.
func testClaimAfterClose(t *testing.T, join joiner) {
	held := make(chan *fdipc.Handle, 2)
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
		if err := f.Handles[0].Claim(); err != nil {
			t.Error(err)
		}
		held <- f.Handles[0]
	})
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "claimed")}})
	theirs := wait(t, "handle", held)
	a.Close()
	if o := wait(t, "outcome", a.outcomes); o.o != fdipc.Claimed {
		t.Fatalf("%v", o.o)
	}
	if id := readHandle(t, theirs); id != "claimed" {
		t.Errorf("read %q", id)
	}
}

// Node: test-child-process-send-handle-twice.
func testSentTwice(t *testing.T, join joiner) {
	a, _, held := holding(t, join)
	h, other := pipeHandle(t, "once"), pipeHandle(t, "other")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	err := a.TrySend(&fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{other, h}})
	if !errors.Is(err, fdipc.ErrHandleUsed) {
		t.Errorf("second send: %v", err)
	}
	if id := readHandle(t, other); id != "other" { // still the caller's
		t.Errorf("read %q", id)
	}
	if _, err := h.File(); !errors.Is(err, fdipc.ErrHandleUsed) {
		t.Errorf("use of a sent handle: %v", err)
	}
	readHandle(t, wait(t, "handle", held))
}

// A received handle is sent on without being opened.
func testSentOn(t *testing.T, join joiner) {
	got := make(chan string, 1)
	var a, b, c, d side
	start(t, join, &c, &d, c.config(nil), d.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- readHandle(t, f.Handles[0]) }))
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if err := f.Handles[0].Claim(); err != nil {
			t.Error(err)
		}
		if err := c.TrySend(&fdipc.Frame{Kind: kind, Handles: f.Handles}); err != nil {
			t.Error(err)
		}
	}))
	// Credit comes with the handshake; a frame without handles has not to wait for it.
	warm := pipeHandle(t, "warm")
	c.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{warm}})
	wait(t, "first", got)
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "far")}})
	if id := wait(t, "handle", got); id != "far" {
		t.Errorf("read %q", id)
	}
	for _, s := range []*side{&a, &c} {
		if o := wait(t, "outcome", s.outcomes); o.o != fdipc.Claimed {
			t.Error(o.o)
		}
	}
}

func testNoCredit(t *testing.T, join joiner) {
	held := make(chan *fdipc.Handle, 10)
	var a, b side
	ca, cb := a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] })
	ca.Credits, cb.Credits = 9, 2 // the lower counts
	start(t, join, &a, &b, ca, cb)
	for range 2 {
		a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "")}})
	}
	if n := a.Credit(); n != 0 {
		t.Errorf("credit %d", n)
	}
	h := pipeHandle(t, "third")
	if err := a.TrySend(&fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}}); !errors.Is(err, fdipc.ErrFull) {
		t.Errorf("without credit: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Send(ctx, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}}); !errors.Is(err, context.Canceled) {
		t.Errorf("without credit: %v", err)
	}
	err := a.TrySend(&fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h, pipeHandle(t, ""), pipeHandle(t, "")}})
	if !errors.Is(err, fdipc.ErrTooManyHandles) || !strings.HasSuffix(err.Error(), ": 3, at most 2") {
		t.Errorf("more handles than credits: %v", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- a.Send(context.Background(), &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}}) }()
	readHandle(t, wait(t, "handle", held))
	if err := wait(t, "credit", sent); err != nil {
		t.Error(err)
	}
	readHandle(t, wait(t, "handle", held))
	readHandle(t, wait(t, "handle", held))
}
