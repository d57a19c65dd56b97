//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["signals before it is up"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		cfg.Hooks.Started = func(*coppice.Runtime) { // up is the tree when this has returned
			seen := make(chan os.Signal, 2)
			signal.Notify(seen, syscall.SIGHUP, syscall.SIGTTIN)
			for _, sig := range []syscall.Signal{syscall.SIGTTIN, syscall.SIGHUP} {
				if err := syscall.Kill(os.Getpid(), sig); err != nil {
					fmt.Println(err)
				}
				<-seen
			}
		}
		return cfg
	}
}

// TestSignalsBeforeItIsUp: a process that learns from the program's own hook that the tree is there
// may ask for a reload: the signal is not lost, though the tree counts as up a moment later.
func TestSignalsBeforeItIsUp(t *testing.T) {
	p := runtimetest.Start(t, []string{treeVar + "=signals before it is up"})
	p.Await(`reloaded generation=2 `)
	runtimetest.Eventually(t, "two workers", func() bool { return len(runtimetest.Children(t, p.PID())) == 2+1 })
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
