package fdipc_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// Node: test-cluster-send-deadlock: both sides send handles at each other at once.
func testCrossFire(t *testing.T, join joiner) {
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
	wait(t, "end", done)
	wait(t, "end", done)
	for _, s := range []*side{&a, &b} {
		for range n {
			if o := wait(t, "outcome", s.outcomes); o.o != fdipc.Claimed {
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

func testFull(t *testing.T, join joiner) {
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
	if err := wait(t, "room", sent); err != nil {
		t.Error(err)
	}
}

func testControlOvertakes(t *testing.T, join joiner) {
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
	wait(t, "control frame", control)
}
