//go:build linux

package coppice_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
)

// longSize is more than any frame takes.
const longSize = 65 << 20

// longEnd is how a configuration of longSize ends.
var longEnd = []byte("the end")

func init() {
	trees["long configuration"] = func() coppice.Config {
		return coppice.Config{
			Load: func(context.Context) ([]byte, error) {
				return append(make([]byte, longSize-len(longEnd)), longEnd...), nil
			},
			Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 3, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if len(w.Config()) != longSize || !bytes.HasSuffix(w.Config(), longEnd) {
					return fmt.Errorf("a configuration of %d bytes that is not the master's", len(w.Config()))
				}
				if err := tell(ctx, w, workerReport{}); err != nil {
					return err
				}
				return idle(ctx, w)
			}}},
		}
	}
}

func init() {
	trees["long specs"] = func() coppice.Config {
		cfg := pool(3, func(ctx context.Context, w *coppice.Worker) error {
			if err := tell(ctx, w, workerReport{}); err != nil {
				return err
			}
			return idle(ctx, w)
		})
		web := cfg.Children[0].(coppice.Pool)
		for i := range 10 {
			web.Environment.Env = append(web.Environment.Env, fmt.Sprintf("LONG%d=\xff", i)+strings.Repeat("x", 120_000))
		}
		cfg.Children[0] = web
		return cfg
	}
}

// TestLongSpecs: a tree whose specs are longer than a queue's room starts, and its children are
// found to be of the same tree.
func TestLongSpecs(t *testing.T) { startTree(t, "long specs").reported(3) }

// TestLongConfiguration: a configuration need not fit in a frame: 65 MiB reach every worker, and
// its replacement.
func TestLongConfiguration(t *testing.T) { inBoth(t, testLongConfiguration) }

func testLongConfiguration(t *testing.T) {
	p := startTree(t, "long configuration")
	p.reported(3)
	if inProcess() {
		if err := syscall.Kill(p.pid("web/0"), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.reported(1) // the replacement
	}
	if testing.Short() {
		return // a new generation gets its configuration on the same way
	}
	if err := p.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	p.reported(3)
}

// TestConfigurationTooLong: Start's error has the length and the bound.
func TestConfigurationTooLong(t *testing.T) {
	cfg := trees["long configuration"]()
	cfg.Load = func(context.Context) ([]byte, error) { return make([]byte, 256<<20+1), nil }
	rt, err := coppice.Start(t.Context(), cfg)
	if err == nil {
		_ = rt.Shutdown(t.Context())
	}
	if err == nil || !strings.Contains(err.Error(), "Config.Load returned 268435457 bytes, at most 268435456") {
		t.Errorf("error %v", err)
	}
}
