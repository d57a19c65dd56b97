package fdipc_test

import (
	"context"
	"io"
	"os"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

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
		Resolved:     func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { s.outcomes <- outcome{h, o} },
		Closed:       func(_ *fdipc.Conn, err error) { s.closed <- err },
	}
}

// start joins two sides. At the end of the test they are closed.
func start(t *testing.T, join joiner, a, b *side, ca, cb fdipc.Config) {
	t.Helper()
	a.Conn, b.Conn = join(t, ca, cb)
	t.Cleanup(func() {
		a.Close()
		b.Close()
		a.PeerGone()
		b.PeerGone()
		_ = wait(t, "end of A", a.closed)
		_ = wait(t, "end of B", b.closed)
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

// oneWay joins two sides of which the second handles frames.
func oneWay(t *testing.T, join joiner, handler func(*fdipc.Conn, *fdipc.Frame)) (a, b *side) {
	t.Helper()
	a, b = new(side), new(side)
	start(t, join, a, b, a.config(nil), b.config(handler))
	return a, b
}

// holding is oneWay with a second side that keeps the first handle of each frame, unclaimed.
func holding(t *testing.T, join joiner) (a, b *side, held <-chan *fdipc.Handle) {
	t.Helper()
	c := make(chan *fdipc.Handle, 2)
	a, b = oneWay(t, join, func(_ *fdipc.Conn, f *fdipc.Frame) { c <- f.Handles[0] })
	return a, b, c
}
