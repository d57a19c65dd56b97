//go:build linux

package coppice_test

import (
	"context"
	"runtime/pprof"
	"strings"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
)

func init() {
	trees["goroutines"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
}

// maxWorkerGoroutines bounds the goroutines that the master has for one worker that is ready: its
// own, that of its process's end, two for its output, and four for its channel.
const maxWorkerGoroutines = 8

// TestWorkerGoroutines: the master has a fixed number of goroutines for each worker.
func TestWorkerGoroutines(t *testing.T) {
	p := startTree(t, "goroutines")
	before := p.atRest()
	const more = 5
	if err := p.Scale(t.Context(), "web", 1+more); err != nil {
		t.Fatal(err)
	}
	now := p.atRest()
	if n := now.goroutines - before.goroutines; n > more*maxWorkerGoroutines {
		var b strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&b, 1)
		t.Errorf("%d goroutines for %d workers, want at most %d for each:\n%s", n, more, maxWorkerGoroutines, b.String())
	}
}
