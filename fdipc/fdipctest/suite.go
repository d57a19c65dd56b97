package fdipctest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// Join joins two Conns; the suite closes them.
type Join func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn)

// Lacks says what the link under test does without.
type Lacks uint8

const (
	NoTable Lacks = 1 << iota // claims travel as frames
	NoLane                    // both lanes share a socket and a goroutine
)

// TestConn is the conformance suite: what any link between two Conns must do.
func TestConn(t *testing.T, join Join, lacks Lacks) {
	tests := []struct {
		name  string
		run   func(*testing.T, Join)
		needs Lacks // the test is not for links that lack it
	}{
		{"Fields", testFields, 0},
		{"Order", testOrder, 0},
		{"LargeFrames", testLargeFrames, 0},
		{"LargeFrameWithHandle", testLargeFrameWithHandle, 0},
		{"HandleBelongsToFrame", testHandleBelongsToFrame, 0},
		{"ManyHandles", testManyHandles, 0},
		{"Claimed", testClaimed, 0},
		{"Refused", testRefused, 0},
		{"ReturnedOnDeadline", testReturnedOnDeadline, NoTable},
		{"ReturnedOnClose", testReturnedOnClose, NoTable},
		{"ReturnedOnPeerClose", testReturnedOnPeerClose, NoTable},
		{"NoDeadline", testNoDeadline, 0},
		{"PeerGone", testPeerGone, 0},
		{"ClaimAfterClose", testClaimAfterClose, 0},
		{"SentTwice", testSentTwice, 0},
		{"SentOn", testSentOn, 0},
		{"CrossFire", testCrossFire, 0},
		{"Full", testFull, 0},
		{"ControlOvertakes", testControlOvertakes, NoLane},
		{"NoCredit", testNoCredit, 0},
		{"Limits", testLimits, 0},
		{"Close", testClose, 0},
		{"CloseWrite", testCloseWrite, 0},
		{"CloseInHandler", testCloseInHandler, 0},
		{"ConcurrentSend", testConcurrentSend, 0},
	}
	for _, tt := range tests {
		if tt.needs&lacks != 0 {
			continue
		}
		if lacks == NoTable|NoLane && tt.name == "CrossFire" {
			continue // claims share the one socket with the flood, and a claim waits for the kernel to take it
		}
		t.Run(tt.name, func(t *testing.T) {
			check := Leaks(t)
			t.Run("", func(t *testing.T) { tt.run(t, join) })
			check()
		})
	}
}

// user kinds of the suite
const kind fdipc.Kind = 0x40

type outcome struct {
	h *fdipc.Handle
	o fdipc.Outcome
}

// side is one Conn of a test, with what it has seen.
type side struct {
	*fdipc.Conn
	outcomes chan outcome
	closed   chan error
}

func (s *side) config(handler func(*fdipc.Conn, *fdipc.Frame)) fdipc.Config {
	s.outcomes, s.closed = make(chan outcome, 4096), make(chan error, 2)
	if handler == nil {
		handler = func(_ *fdipc.Conn, f *fdipc.Frame) { f.Refuse(fdipc.ReasonUnknown) }
	}
	return fdipc.Config{
		Handler:      handler,
		ClaimTimeout: -1, // a slow machine is no fault; the test of the deadline sets one
		Settled:      func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { s.outcomes <- outcome{h, o} },
		Closed:       func(_ *fdipc.Conn, err error) { s.closed <- err },
	}
}

// start joins two sides. At the end of the test they are closed.
func start(t *testing.T, join Join, a, b *side, ca, cb fdipc.Config) {
	t.Helper()
	a.Conn, b.Conn = join(t, ca, cb)
	t.Cleanup(func() {
		a.Close()
		b.Close()
		a.PeerGone()
		b.PeerGone()
		_ = Wait(t, "end of A", a.closed)
		_ = Wait(t, "end of B", b.closed)
	})
}

func (s *side) send(t testing.TB, f *fdipc.Frame) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Send(ctx, f); err != nil {
		t.Fatal(err)
	}
}

// pipeHandle makes a handle of the reading end of a pipe. Whoever claims it can read id.
func pipeHandle(t testing.TB, id string) *fdipc.Handle {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, id)
	w.Close()
	h, err := fdipc.HandleOf(r)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// readHandle claims h and reads its id.
func readHandle(t testing.TB, h *fdipc.Handle) string {
	f, err := h.File()
	if err != nil {
		t.Error(err)
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func testFields(t *testing.T, join Join) {
	got := make(chan fdipc.Frame, 2)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		g := *f
		g.Payload = bytes.Clone(f.Payload)
		g.Handles = append([]*fdipc.Handle(nil), f.Handles...)
		got <- g
	}))
	h := pipeHandle(t, "x").Named("first")
	h.Trace = fdipc.TraceContext{9, 8, 7}
	sent := fdipc.Frame{
		Kind: 0xff, Lane: fdipc.Data, Flags: 0x81, Target: 1<<64 - 2, Trace: fdipc.TraceContext{1, 2, 25: 3},
		Payload: []byte("payload"), Handles: []*fdipc.Handle{h},
	}
	a.send(t, &sent)
	f := Wait(t, "frame", got)
	if f.Kind != sent.Kind || f.Lane != sent.Lane || f.Flags != sent.Flags || f.Target != sent.Target || f.Trace != sent.Trace || string(f.Payload) != "payload" {
		t.Errorf("got %+v, sent %+v", f, sent)
	}
	if len(f.Handles) != 1 || f.Handles[0].Name() != "first" || f.Handles[0].Trace != h.Trace {
		t.Fatalf("handles %+v", f.Handles)
	}
	readHandle(t, f.Handles[0])
	a.send(t, &fdipc.Frame{Kind: fdipc.FirstUserKind})
	f = Wait(t, "frame", got)
	if f.Kind != fdipc.FirstUserKind || f.Lane != fdipc.Control || len(f.Payload) != 0 || f.Trace != (fdipc.TraceContext{}) || f.Handles != nil {
		t.Errorf("empty frame arrived as %+v", f)
	}
}

func testOrder(t *testing.T, join Join) {
	const n = 20000
	done := make(chan fdipc.Lane, 2)
	var next [2]uint64
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if f.Target != next[f.Lane] {
			t.Errorf("%v: %d in place of %d", f.Lane, f.Target, next[f.Lane])
		}
		for _, c := range f.Payload {
			if c != byte(f.Target) {
				t.Errorf("%v: payload of %d is damaged", f.Lane, f.Target)
			}
		}
		if next[f.Lane]++; next[f.Lane] == n {
			done <- f.Lane
		}
	}))
	var wg sync.WaitGroup
	for lane := range fdipc.Lane(2) {
		wg.Go(func() {
			for i := range uint64(n) {
				a.send(t, &fdipc.Frame{Kind: kind, Lane: lane, Target: i, Payload: bytes.Repeat([]byte{byte(i)}, int(i*i%300))})
			}
		})
	}
	wg.Wait()
	Wait(t, "end of a lane", done)
	Wait(t, "end of a lane", done)
}

// Node: test-child-process-advanced-serialization-largebuffer.
func testLargeFrames(t *testing.T, join Join) {
	got := make(chan []byte, 4)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- bytes.Clone(f.Payload) }))
	var bufs [4][]byte
	for i := range bufs {
		bufs[i] = bytes.Repeat([]byte{byte(i), 1, 2, 3, 5, 7, 11}, 8<<20/7)
	}
	go func() {
		for _, p := range bufs {
			a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: p})
		}
	}()
	for i := range bufs {
		if !bytes.Equal(Wait(t, "frame", got), bufs[i]) {
			t.Errorf("frame %d is damaged", i)
		}
	}
}

// Node: test-cluster-send-handle-large-payload, test-child-process-send-utf8: 800 kB with a
// socket, there and back.
func testLargeFrameWithHandle(t *testing.T, join Join) {
	text := strings.Repeat("ä€𝄞x", 80000)
	back := make(chan string, 1)
	var a, b side
	ca := a.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if string(f.Payload) != text {
			t.Error("payload damaged on the way back")
		}
		back <- readHandle(t, f.Handles[0])
	})
	cb := b.config(func(c *fdipc.Conn, f *fdipc.Frame) {
		if string(f.Payload) != text {
			t.Error("payload damaged on the way there")
		}
		if err := f.Handles[0].Claim(); err != nil {
			t.Error(err)
		}
		if err := c.TrySend(&fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: f.Payload, Handles: f.Handles}); err != nil {
			t.Error(err)
		}
	})
	start(t, join, &a, &b, ca, cb)
	a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: []byte(text), Handles: []*fdipc.Handle{pipeHandle(t, "there and back")}})
	if id := Wait(t, "answer", back); id != "there and back" {
		t.Errorf("handle holds %q", id)
	}
}

// Node: test-child-process-recv-handle: messages 1, 2 with a handle, 3, in one batch.
func testHandleBelongsToFrame(t *testing.T, join Join) {
	const n = 3000
	done := make(chan struct{})
	i := 0
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if want := i % 3; (len(f.Handles) > 0) != (want == 1) {
			t.Errorf("frame %d has %d handles", i, len(f.Handles))
		}
		for _, h := range f.Handles {
			if id := readHandle(t, h); id != fmt.Sprint(f.Target) {
				t.Errorf("frame %d has the handle of %s", f.Target, id)
			}
		}
		if i++; i == n {
			close(done)
		}
	}))
	for i := range n {
		f := &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Target: uint64(i), Payload: make([]byte, i%50)}
		if i%3 == 1 {
			f.Handles = []*fdipc.Handle{pipeHandle(t, fmt.Sprint(i))}
		}
		a.send(t, f)
	}
	Wait(t, "last frame", done)
}

func testManyHandles(t *testing.T, join Join) {
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
	if g := Wait(t, "frame", got); g != n {
		t.Errorf("%d handles arrived", g)
	}
	for range n {
		if o := Wait(t, "outcome", a.outcomes); o.o != fdipc.Claimed {
			t.Fatal(o.o)
		}
	}
}

func testClaimed(t *testing.T, join Join) {
	got := make(chan string, 1)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if err := errors.Join(f.Handles[0].Claim(), f.Handles[0].Claim()); err != nil {
			t.Errorf("claiming twice: %v", err)
		}
		f.Handles[0].Refuse(99) // too late, no effect
		got <- readHandle(t, f.Handles[0])
		if _, err := f.Handles[0].File(); !errors.Is(err, fdipc.ErrHandleUsed) {
			t.Errorf("second conversion: %v", err)
		}
	}))
	h := pipeHandle(t, "mine")
	h.Tag = "tag"
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	if id := Wait(t, "handle", got); id != "mine" {
		t.Errorf("read %q", id)
	}
	o := Wait(t, "outcome", a.outcomes)
	if o.h != h || o.o != fdipc.Claimed || o.h.Tag != "tag" {
		t.Errorf("%v", o)
	}
	if st := a.Stats(); st.Offered != 1 || st.Claimed != 1 || st.Outstanding != 0 {
		t.Errorf("%+v", st)
	}
}

func testRefused(t *testing.T, join Join) {
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		f.Refuse(42)
		if err := f.Handles[0].Claim(); !errors.Is(err, fdipc.ErrHandleUsed) {
			t.Errorf("claim after refusal: %v", err)
		}
	}))
	h := pipeHandle(t, "back")
	for range 3 { // it can be offered again
		a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
		o := Wait(t, "outcome", a.outcomes)
		if o.h != h || o.o != fdipc.Refused || h.Reason() != 42 {
			t.Fatalf("%v, reason %d", o, h.Reason())
		}
	}
	if id := readHandle(t, h); id != "back" {
		t.Errorf("read %q", id)
	}
}

func testReturnedOnDeadline(t *testing.T, join Join) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	ca, cb := a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] })
	ca.ClaimTimeout = 20 * time.Millisecond
	start(t, join, &a, &b, ca, cb)
	h := pipeHandle(t, "late")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	if o := Wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
		t.Fatalf("%v", o)
	}
	if !a.Stalled() || a.Credit() != 0 {
		t.Errorf("stalled %v, credit %d", a.Stalled(), a.Credit())
	}
	late := Wait(t, "handle", held)
	if err := late.Claim(); !errors.Is(err, fdipc.ErrRevoked) {
		t.Errorf("late claim: %v", err)
	}
	// The attempt is the sign of life.
	if a.Stalled() || a.Credit() == 0 {
		t.Errorf("stalled %v, credit %d", a.Stalled(), a.Credit())
	}
	if id := readHandle(t, h); id != "late" {
		t.Errorf("read %q", id)
	}
	if st := a.Stats(); st.Revoked != 1 || st.Stalls != 1 {
		t.Errorf("%+v", st)
	}
}

func testReturnedOnClose(t *testing.T, join Join) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] }))
	h := pipeHandle(t, "kept")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	theirs := Wait(t, "handle", held)
	a.Close()
	if o := Wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
		t.Fatalf("%v", o)
	}
	if err := theirs.Claim(); !errors.Is(err, fdipc.ErrRevoked) {
		t.Errorf("claim: %v", err)
	}
	if id := readHandle(t, h); id != "kept" {
		t.Errorf("read %q", id)
	}
}

func testReturnedOnPeerClose(t *testing.T, join Join) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] }))
	h := pipeHandle(t, "kept")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	theirs := Wait(t, "handle", held)
	b.Close()
	if o := Wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
		t.Fatalf("%v", o)
	}
	theirs.Close()
	if id := readHandle(t, h); id != "kept" {
		t.Errorf("read %q", id)
	}
}

// Without a deadline nothing is taken back from a slow peer.
func testNoDeadline(t *testing.T, join Join) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	ca, cb := a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] })
	start(t, join, &a, &b, ca, cb)
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "slow")}})
	if id := readHandle(t, Wait(t, "handle", held)); id != "slow" {
		t.Errorf("read %q", id)
	}
	if o := Wait(t, "outcome", a.outcomes); o.o != fdipc.Claimed {
		t.Error(o.o)
	}
}

// When the peer is gone, and known to be dead, everything it had not claimed comes back, table or not.
func testPeerGone(t *testing.T, join Join) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] }))
	h := pipeHandle(t, "kept")
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}})
	theirs := Wait(t, "handle", held)
	b.Close()
	a.PeerGone()
	if o := Wait(t, "outcome", a.outcomes); o.h != h || o.o != fdipc.Returned {
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
func testClaimAfterClose(t *testing.T, join Join) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if err := f.Handles[0].Claim(); err != nil {
			t.Error(err)
		}
		held <- f.Handles[0]
	}))
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "claimed")}})
	theirs := Wait(t, "handle", held)
	a.Close()
	if o := Wait(t, "outcome", a.outcomes); o.o != fdipc.Claimed {
		t.Fatalf("%v", o.o)
	}
	if id := readHandle(t, theirs); id != "claimed" {
		t.Errorf("read %q", id)
	}
}

// Node: test-child-process-send-handle-twice.
func testSentTwice(t *testing.T, join Join) {
	held := make(chan *fdipc.Handle, 2)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] }))
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
	readHandle(t, Wait(t, "handle", held))
}

// A received handle is sent on without being opened.
func testSentOn(t *testing.T, join Join) {
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
	Wait(t, "first", got)
	a.send(t, &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{pipeHandle(t, "far")}})
	if id := Wait(t, "handle", got); id != "far" {
		t.Errorf("read %q", id)
	}
	for _, s := range []*side{&a, &c} {
		if o := Wait(t, "outcome", s.outcomes); o.o != fdipc.Claimed {
			t.Error(o.o)
		}
	}
}

// Node: test-cluster-send-deadlock: both sides send handles at each other at once.
func testCrossFire(t *testing.T, join Join) {
	const n = 2000
	var a, b side
	done := make(chan struct{}, 2)
	taker := func() func(*fdipc.Conn, *fdipc.Frame) {
		seen := 0
		return func(_ *fdipc.Conn, f *fdipc.Frame) {
			for _, h := range f.Handles {
				if err := h.Claim(); err != nil {
					t.Error(err)
				}
				h.Close()
			}
			if seen++; seen == n {
				done <- struct{}{}
			}
		}
	}
	start(t, join, &a, &b, a.config(taker()), b.config(taker()))
	var wg sync.WaitGroup
	for _, s := range []*side{&a, &b} {
		wg.Go(func() {
			for range n {
				s.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: make([]byte, 700), Handles: []*fdipc.Handle{pipeHandle(t, "")}})
			}
		})
	}
	wg.Wait()
	Wait(t, "end", done)
	Wait(t, "end", done)
	for _, s := range []*side{&a, &b} {
		for range n {
			if o := Wait(t, "outcome", s.outcomes); o.o != fdipc.Claimed {
				t.Fatal(o.o)
			}
		}
	}
}

// blocked is a side whose handler of data frames waits until open is called.
func blocked(b *side, control chan<- struct{}) (cfg fdipc.Config, open func()) {
	gate := make(chan struct{})
	cfg = b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if f.Lane == fdipc.Control {
			control <- struct{}{}
			return
		}
		<-gate
	})
	return cfg, sync.OnceFunc(func() { close(gate) })
}

// fill sends data frames until the lane is full.
func fill(t *testing.T, a *side) {
	t.Helper()
	f := &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: make([]byte, 4000)}
	a.send(t, f)
	full := 0
	for range 1 << 20 {
		err := a.TrySend(f)
		switch {
		case errors.Is(err, fdipc.ErrFull):
			// The kernel may still be taking some: a Send that has to wait shows that it does not.
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			err := a.Send(ctx, f)
			cancel()
			if errors.Is(err, context.DeadlineExceeded) {
				return
			}
			full++
		case err != nil:
			t.Fatal(err)
		}
	}
	t.Fatalf("the lane takes everything (full %d times)", full)
}

func testFull(t *testing.T, join Join) {
	var a, b side
	cb, open := blocked(&b, nil)
	defer open()
	ca := a.config(nil)
	ca.QueueBytes = 64 << 10
	start(t, join, &a, &b, ca, cb)
	fill(t, &a)
	if a.Stats().Full == 0 {
		t.Error("ErrFull was not counted")
	}
	sent := make(chan error, 1)
	go func() {
		sent <- a.Send(context.Background(), &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Payload: make([]byte, 4000)})
	}()
	open()
	if err := Wait(t, "room", sent); err != nil {
		t.Error(err)
	}
}

func testControlOvertakes(t *testing.T, join Join) {
	control := make(chan struct{}, 1)
	var a, b side
	cb, open := blocked(&b, control)
	ca := a.config(nil)
	ca.QueueBytes = 64 << 10
	start(t, join, &a, &b, ca, cb)
	defer open()
	fill(t, &a)
	if err := a.TrySend(&fdipc.Frame{Kind: kind, Lane: fdipc.Control}); err != nil {
		t.Fatal(err)
	}
	Wait(t, "control frame", control)
}

func testNoCredit(t *testing.T, join Join) {
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
	if !errors.Is(err, fdipc.ErrTooManyHandles) {
		t.Errorf("more handles than credits: %v", err)
	}
	sent := make(chan error, 1)
	go func() { sent <- a.Send(context.Background(), &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}}) }()
	readHandle(t, Wait(t, "handle", held))
	if err := Wait(t, "credit", sent); err != nil {
		t.Error(err)
	}
	readHandle(t, Wait(t, "handle", held))
	readHandle(t, Wait(t, "handle", held))
}

func testLimits(t *testing.T, join Join) {
	got := make(chan int, 1)
	var a, b side
	ca, cb := a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- len(f.Payload) })
	ca.MaxFrame = 1000
	start(t, join, &a, &b, ca, cb)
	if err := a.TrySend(&fdipc.Frame{Kind: kind, Payload: make([]byte, 1001)}); !errors.Is(err, fdipc.ErrTooBig) {
		t.Errorf("1001 bytes: %v", err)
	}
	if err := a.TrySend(&fdipc.Frame{Kind: 0x0f}); !errors.Is(err, fdipc.ErrKind) {
		t.Errorf("kind of the transport: %v", err)
	}
	if err := a.TrySend(&fdipc.Frame{Kind: kind, Lane: 2}); !errors.Is(err, fdipc.ErrKind) {
		t.Errorf("third lane: %v", err)
	}
	a.send(t, &fdipc.Frame{Kind: kind, Payload: make([]byte, 1000)})
	if n := Wait(t, "frame", got); n != 1000 {
		t.Error(n)
	}
}

// Node: test-child-process-send-after-close.
func testClose(t *testing.T, join Join) {
	got := make(chan uint64, 100)
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target }))
	a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data})
	Wait(t, "first frame", got)
	for i := range uint64(50) {
		a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Target: i})
	}
	a.Close()
	a.Close()
	Wait(t, "end of A", a.Done())
	Wait(t, "end of B", b.Done())
	if len(got) != 50 {
		t.Errorf("%d of 50 frames arrived", len(got))
	}
	if !errors.Is(a.Err(), fdipc.ErrClosed) || a.Err() == nil {
		t.Errorf("A ended with %v", a.Err())
	}
	if !errors.Is(b.Err(), io.EOF) {
		t.Errorf("B ended with %v", b.Err())
	}
	h := pipeHandle(t, "mine")
	for _, s := range []*side{&a, &b} {
		if err := s.Send(context.Background(), &fdipc.Frame{Kind: kind, Handles: []*fdipc.Handle{h}}); !errors.Is(err, s.Err()) {
			t.Errorf("send after close: %v", err)
		}
	}
	if id := readHandle(t, h); id != "mine" {
		t.Errorf("read %q", id)
	}
}

func testCloseWrite(t *testing.T, join Join) {
	got := make(chan uint64, 2)
	var a, b side
	ca := a.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target })
	cb := b.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target })
	start(t, join, &a, &b, ca, cb)
	a.send(t, &fdipc.Frame{Kind: kind, Target: 1})
	if n := Wait(t, "frame", got); n != 1 {
		t.Error(n)
	}
	b.send(t, &fdipc.Frame{Kind: kind, Target: 3}) // A's handshake is over when this has come
	Wait(t, "frame", got)
	if err := a.CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := a.TrySend(&fdipc.Frame{Kind: kind}); !errors.Is(err, fdipc.ErrClosed) {
		t.Errorf("send after CloseWrite: %v", err)
	}
	b.send(t, &fdipc.Frame{Kind: kind, Target: 2})
	if n := Wait(t, "frame", got); n != 2 {
		t.Error(n)
	}
	if err := b.CloseWrite(); err != nil {
		t.Error(err)
	}
	Wait(t, "end of A", a.Done())
	Wait(t, "end of B", b.Done())
	if !errors.Is(a.Err(), io.EOF) || !errors.Is(b.Err(), io.EOF) {
		t.Errorf("ended with %v and %v", a.Err(), b.Err())
	}
}

func testCloseInHandler(t *testing.T, join Join) {
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(c *fdipc.Conn, _ *fdipc.Frame) { c.Close() }))
	a.send(t, &fdipc.Frame{Kind: kind})
	Wait(t, "end of B", b.Done())
	Wait(t, "end of A", a.Done())
}

func testConcurrentSend(t *testing.T, join Join) {
	const senders, n = 8, 2000
	var next [senders]uint64
	left := senders * n
	done := make(chan struct{})
	var a, b side
	start(t, join, &a, &b, a.config(nil), b.config(func(_ *fdipc.Conn, f *fdipc.Frame) {
		if f.Target != next[f.Flags] {
			t.Errorf("sender %d: %d in place of %d", f.Flags, f.Target, next[f.Flags])
		}
		next[f.Flags]++
		if left--; left == 0 {
			close(done)
		}
	}))
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range uint64(n) {
				a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Flags: uint8(s), Target: i, Payload: make([]byte, 100)})
			}
		})
	}
	wg.Wait()
	Wait(t, "last frame", done)
}
