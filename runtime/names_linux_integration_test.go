//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// treesNames are names that no worker may register.
var treesNames = []string{
	"master", "master/tickets", "master/tree", "tickets", "tree", "listener", "listener/web", "listeners",
	"evil", "evil/0", "evil/0/thief", "evil/7", "web", "web/0", "report", "group/inner",
}

func init() {
	trees["thief"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		cfg.Children = append(cfg.Children,
			coppice.Pool{Name: "evil", Size: 1, Worker: steal},
			coppice.Supervisor{Name: "group", Children: []coppice.ChildSpec{coppice.Func{Name: "inner", Run: func(ctx context.Context) error {
				<-ctx.Done()
				return nil
			}}}},
		)
		return cfg
	}
}

// steal tries to register the tree's names, and then a name of the worker's.
func steal(ctx context.Context, w *coppice.Worker) error {
	pid, err := w.System().Spawn(ctx, "thief", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) })
	if err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	for _, name := range treesNames {
		for _, err := range []error{w.System().Register(ctx, name, pid), w.System().Reregister(ctx, name, pid)} {
			if !errors.Is(err, actors.ErrReserved) {
				fmt.Printf("stole %q: %v\n", name, err)
			}
		}
	}
	fmt.Println("its own:", w.System().Register(ctx, "leader", pid))
	<-ctx.Done()
	return nil
}

// A worker cannot take a name of the tree, taken or free, that others may look up. The master names
// the workers, and a worker may have names below its own.
func TestWorkerCannotTakeNamesOfTheTree(t *testing.T) {
	p := startTree(t, "thief")
	runtimetest.Eventually(t, "its own name", func() bool { return strings.Contains(p.output.String(), "its own: <nil>") })
	if out := p.output.String(); strings.Contains(out, "stole") {
		t.Error(out)
	}
	for _, name := range []string{"web/0", "evil/0", "listener", "leader"} {
		if _, err := p.System().Whereis(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}
