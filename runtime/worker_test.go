package coppice

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// late is a server whose Serve begins when its Shutdown has returned: it was asked to stop before
// it knew its listener, so its Shutdown knows nothing of the listener, as with fasthttp.
type late struct{ shut chan struct{} }

func (s late) Serve(ln net.Listener) error {
	<-s.shut
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		c.Close()
	}
}

func (s late) Shutdown(context.Context) error {
	close(s.shut)
	return nil
}

// TestServeStoppedAtOnce: a worker that is asked to stop before its server has begun to serve ends
// all the same.
func TestServeStoppedAtOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	served := make(chan error, 1)
	go func() { served <- new(Worker).Serve(ctx, ln, late{make(chan struct{})}) }() // ends with ln
	select {
	case err := <-served:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("Serve does not return")
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("it still listens: %v, %v", c, err)
	}
}
