package fdipc_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// Node: test-child-process-send-after-close.
func testClose(t *testing.T, join joiner) {
	got := make(chan uint64, 100)
	a, b := oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target })
	a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data})
	wait(t, "first frame", got)
	for i := range uint64(50) {
		a.send(t, &fdipc.Frame{Kind: kind, Lane: fdipc.Data, Target: i})
	}
	a.Close()
	a.Close()
	wait(t, "end of A", a.Done())
	wait(t, "end of B", b.Done())
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

func testCloseInHandler(t *testing.T, join joiner) {
	a, b := oneWay(t, join, func(c *fdipc.Conn, _ *fdipc.Frame) { c.Close() })
	a.send(t, &fdipc.Frame{Kind: kind})
	wait(t, "end of B", b.Done())
	wait(t, "end of A", a.Done())
}
