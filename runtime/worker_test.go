package coppice

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
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

// TestZeroWorker: what a Worker without a master cannot do is an error, or a line of log, and its
// actors are those that the test spawns.
func TestZeroWorker(t *testing.T) {
	w := new(Worker)
	if _, err := w.System().Ask(t.Context(), w.Lookup("sessions"), "who?"); !errors.Is(err, actors.ErrNoActor) {
		t.Errorf("an ask of no actor: %v, want %v", err, actors.ErrNoActor)
	}
	if _, err := w.System().Spawn(t.Context(), "sessions", func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			if c.Message() == "who?" {
				c.Respond("a fake")
			}
		})
	}); err != nil {
		t.Fatal(err)
	}
	if got, err := w.System().Ask(t.Context(), w.Lookup("sessions"), "who?"); got != "a fake" || err != nil {
		t.Errorf("an ask of the test's actor: %v, %v", got, err)
	}
	var log strings.Builder
	was := slog.Default()
	defer slog.SetDefault(was)
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	first, second := w.Config(), w.Config()
	if first != nil || second != nil || strings.Count(log.String(), "Worker.Config is nil") != 1 {
		t.Errorf("the configuration of the zero Worker; the log says %q", &log)
	}
	if _, err := w.Tree(t.Context()); !errors.Is(err, ErrUnsupported) {
		t.Errorf("the tree of the zero Worker: %v", err)
	}
}
