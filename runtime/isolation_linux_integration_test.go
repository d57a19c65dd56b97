//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestGoroutines: with COPPICE_ISOLATION=goroutine the same trees behave alike, in one process.
func TestGoroutines(t *testing.T) {
	t.Setenv("COPPICE_ISOLATION", "goroutine")
	t.Run("port zero", TestPortZero)
	t.Run("port by slot", TestPortBySlot)
	t.Run("adopt", TestAdopt)
	t.Run("share", TestShare)
	t.Run("listen errors", TestListenErrors)
	t.Run("listener in the tree", TestListenerInTree)
	t.Run("packets", TestListenPacket)
	t.Run("packet listener in the tree", TestPacketListenerInTree)
	t.Run("ask", func(t *testing.T) {
		p := startTree(t, "asks")
		p.reported(1)
		if kids := len(runtimetest.Children(t, pidOf(p.Snapshot()))); kids != 0 {
			t.Errorf("%d child processes", kids)
		}
		answer, err := p.System().Ask(t.Context(), p.Lookup("web/0/echo"), "hello")
		if answer != "hello" || err != nil {
			t.Errorf("answer %v, error %v", answer, err)
		}
	})
	t.Run("panic", func(t *testing.T) {
		p := startTree(t, "panics once asked")
		p.reported(1)
		_, err := p.System().Ask(t.Context(), p.Lookup("web/0/fuse"), "light")
		if !errors.Is(err, actors.ErrDown) {
			t.Errorf("error %v, want ErrDown", err)
		}
		p.reported(1) // the replacement
		found := false
		p.Snapshot().Walk(func(n coppice.Tree) {
			found = found || n.Name == "web/0" && strings.Contains(n.LastExit, "panic: lit")
		})
		if !found {
			t.Errorf("the tree does not tell of the panic:\n%v", p.Snapshot())
		}
	})
}

func pidOf(t coppice.Tree) int { return t.PID }

// TestStuckGoroutine: a worker that does not end costs its goroutine, not the shutdown. Shutdown
// used to wait for it for ever, beyond the end of its context.
func TestStuckGoroutine(t *testing.T) {
	free := make(chan struct{})
	cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		<-free
		return nil
	})
	t.Setenv("COPPICE_ISOLATION", "goroutine")
	rt, err := coppice.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	sub := rt.Events(coppice.FromNow)
	now, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- rt.Shutdown(now) }()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	case <-time.After(runtimetest.Patience):
		t.Error("Shutdown waits for a goroutine that does not end")
	}
	close(free)
	leaked := false
	for ev := range sub.All(t.Context()) {
		leaked = leaked || ev.Kind == coppice.ChildLeaked
	}
	if !leaked {
		t.Error("no event tells of the leak")
	}
}

// TestEndedGoroutineLeavesNoConnection: a worker that is a goroutine and ends, or is given up,
// takes its connections with it, as a process does. Before, their clients waited for ever, and the
// master kept the descriptors.
func TestEndedGoroutineLeavesNoConnection(t *testing.T) {
	t.Setenv("COPPICE_ISOLATION", "goroutine")
	for _, how := range []string{"returns", "panics", "is given up"} {
		t.Run(how, func(t *testing.T) {
			free := make(chan struct{})
			rt, err := coppice.Start(t.Context(), pool(1, func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				context.AfterFunc(ctx, func() { _ = ln.Close() }) // of a replacement, which gets no request
				if err := w.Ready(); err != nil {
					return err
				}
				c, err := ln.Accept() // not closed in this function
				if err != nil {
					return err
				}
				if _, err := c.Write([]byte("hello")); err != nil {
					return err
				}
				switch how {
				case "panics":
					panic("boom")
				case "is given up":
					<-free
				}
				return errors.New("boom")
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = rt.Shutdown(context.Background()) }() // what it had to say is not of interest
			defer close(free)
			c, err := net.Dial("tcp", rt.Listeners()[0].Addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(runtimetest.Patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, len("hello"))); err != nil {
				t.Fatal(err)
			}
			if how == "is given up" {
				now, cancel := context.WithCancel(t.Context())
				cancel()
				_ = rt.Shutdown(now) // it cannot end well
			}
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still open")
			}
		})
	}
}
