//go:build linux

package coppice_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
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
