package fdipctest

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// Node: test-child-process-send-after-close.
func testClose(t *testing.T, join Join) {
	got := make(chan uint64, 100)
	a, b := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target })
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
	for _, s := range []*side{a, b} {
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

// A peer that closed its writing half and then ends is missed, even if nothing is sent to it.
func testLostAfterCloseWrite(t *testing.T, join Join) {
	got := make(chan uint64, 1)
	var a, b side
	start(t, join, &a, &b, a.config(func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target }), b.config(nil))
	b.send(t, &fdipc.Frame{Kind: kind, Target: 1}) // A's handshake is over when this has come
	Wait(t, "frame", got)
	if err := b.CloseWrite(); err != nil {
		t.Error(err)
	}
	b.Close()
	Wait(t, "end of A", a.Done())
	if !errors.Is(a.Err(), fdipc.ErrPeerLost) {
		t.Errorf("A ended with %v", a.Err())
	}
}

func testCloseInHandler(t *testing.T, join Join) {
	a, b := oneWay(t, join, func(c *fdipc.Conn, _ *fdipc.Frame) { c.Close() })
	a.send(t, &fdipc.Frame{Kind: kind})
	Wait(t, "end of B", b.Done())
	Wait(t, "end of A", a.Done())
}
