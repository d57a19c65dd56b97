package fdipc_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

func testFields(t *testing.T, join joiner) {
	got := make(chan fdipc.Frame, 2)
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
		g := *f
		g.Payload = bytes.Clone(f.Payload)
		g.Handles = append([]*fdipc.Handle(nil), f.Handles...)
		got <- g
	})
	h := pipeHandle(t, "x").Named("first")
	h.Trace = fdipc.TraceContext{9, 8, 7}
	sent := fdipc.Frame{
		Kind: 0xff, Lane: fdipc.Data, Flags: 0x81, Target: 1<<64 - 2, Trace: fdipc.TraceContext{1, 2, 25: 3},
		Payload: []byte("payload"), Handles: []*fdipc.Handle{h},
	}
	a.send(t, &sent)
	f := wait(t, "frame", got)
	if f.Kind != sent.Kind || f.Lane != sent.Lane || f.Flags != sent.Flags || f.Target != sent.Target || f.Trace != sent.Trace || string(f.Payload) != "payload" {
		t.Errorf("got %+v, sent %+v", f, sent)
	}
	if len(f.Handles) != 1 || f.Handles[0].Name() != "first" || f.Handles[0].Trace != h.Trace {
		t.Fatalf("handles %+v", f.Handles)
	}
	readHandle(t, f.Handles[0])
	a.send(t, &fdipc.Frame{Kind: fdipc.FirstUserKind})
	f = wait(t, "frame", got)
	if f.Kind != fdipc.FirstUserKind || f.Lane != fdipc.Control || len(f.Payload) != 0 || f.Trace != (fdipc.TraceContext{}) || f.Handles != nil {
		t.Errorf("empty frame arrived as %+v", f)
	}
}

func testOrder(t *testing.T, join joiner) {
	const n = 20000
	done := make(chan fdipc.Lane, 2)
	var next [2]uint64
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
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
	})
	var wg sync.WaitGroup
	for lane := range fdipc.Lane(2) {
		wg.Go(func() {
			for i := range uint64(n) {
				a.send(t, &fdipc.Frame{Kind: kind, Lane: lane, Target: i, Payload: bytes.Repeat([]byte{byte(i)}, int(i*i%300))})
			}
		})
	}
	wg.Wait()
	wait(t, "end of a lane", done)
	wait(t, "end of a lane", done)
}

// Node: test-child-process-advanced-serialization-largebuffer.
func testLargeFrames(t *testing.T, join joiner) {
	got := make(chan []byte, 4)
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) { got <- bytes.Clone(f.Payload) })
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
		if !bytes.Equal(wait(t, "frame", got), bufs[i]) {
			t.Errorf("frame %d is damaged", i)
		}
	}
}

// Node: test-cluster-send-handle-large-payload, test-child-process-send-utf8: 800 kB with a
// socket, there and back.
func testLargeFrameWithHandle(t *testing.T, join joiner) {
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
	if id := wait(t, "answer", back); id != "there and back" {
		t.Errorf("handle holds %q", id)
	}
}

// Node: test-child-process-recv-handle: messages 1, 2 with a handle, 3, in one batch.
func testHandleBelongsToFrame(t *testing.T, join joiner) {
	const n = 3000
	done := make(chan struct{})
	i := 0
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
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
	})
	for i := range n {
		f := &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Target: uint64(i), Payload: make([]byte, i%50)}
		if i%3 == 1 {
			f.Handles = []*fdipc.Handle{pipeHandle(t, fmt.Sprint(i))}
		}
		a.send(t, f)
	}
	wait(t, "last frame", done)
}

func testLimits(t *testing.T, join joiner) {
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
	if n := wait(t, "frame", got); n != 1000 {
		t.Error(n)
	}
}

func testConcurrentSend(t *testing.T, join joiner) {
	const senders, n = 8, 2000
	var next [senders]uint64
	left := senders * n
	done := make(chan struct{})
	a, _ := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) {
		if f.Target != next[f.Flags] {
			t.Errorf("sender %d: %d in place of %d", f.Flags, f.Target, next[f.Flags])
		}
		next[f.Flags]++
		if left--; left == 0 {
			close(done)
		}
	})
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range uint64(n) {
				a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Flags: uint8(s), Target: i, Payload: make([]byte, 100)})
			}
		})
	}
	wg.Wait()
	wait(t, "last frame", done)
}
