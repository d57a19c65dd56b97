//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// TestGoroutines: with COPPICE_ISOLATION=goroutine the same trees do the same,
// in one process.
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
		p := plant(t, "asks")
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
		p := plant(t, "panics once asked")
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

// TestStuckGoroutine: a worker that will not end costs its goroutine, not the
// shutdown: Shutdown waited for it after its context had ended, for ever.
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
	sub := rt.Subscribe(64)
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
	for ev := range sub.Events(t.Context()) {
		leaked = leaked || ev.Kind == supervisor.ChildLeaked
	}
	if !leaked {
		t.Error("no event tells of the leak")
	}
}
