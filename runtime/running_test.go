package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// childrenOf returns the names of the children at a path of one name in t.
func childrenOf(t coppice.Tree, name string) (names []string) {
	for _, c := range t.Children {
		if c.Name == name {
			for _, w := range c.Children {
				names = append(names, w.Name)
			}
		}
	}
	return names
}

// TestTreeFromWithin: a Func, an Actor, Config.Load and a hook have the tree: they list it, ask in
// it, monitor a worker of it, and scale it.
func TestTreeFromWithin(t *testing.T) {
	if coppice.Running() != nil {
		t.Fatal("a tree runs before it was started")
	}
	size := 2
	listed, downs, crashed := make(chan []string, 1), make(chan *actors.Down, 1), make(chan *coppice.Runtime, 16)
	crash := make(chan struct{})
	cfg := coppice.Config{
		Load: func(ctx context.Context) ([]byte, error) {
			return nil, coppice.Running().Scale(ctx, "web", size) // as a configuration says
		},
		Hooks: coppice.Hooks{Crash: func(coppice.CrashReport) { crashed <- coppice.Running() }},
		Children: []coppice.ChildSpec{
			coppice.Actor{Name: "watcher", New: func() actor.Actor {
				sys := coppice.Running().System()
				return actor.ReceiveFunc(func(ctx actor.Context) {
					switch m := ctx.Message().(type) {
					case *actor.PID:
						sys.MonitorFrom(ctx, m)
						ctx.Respond("watched")
					case *actors.Down:
						downs <- m
					}
				})
			}},
			coppice.Pool{Name: "web", Isolation: coppice.GoroutineIsolation, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if err := w.Ready(); err != nil {
					return err
				}
				if w.Slot() == 0 && w.Generation() == 1 {
					select {
					case <-crash:
						return errors.New("as the test wants")
					case <-ctx.Done():
					}
				}
				<-ctx.Done()
				return nil
			}},
			coppice.Func{Name: "status", Run: func(ctx context.Context) error { // as for a /status page
				rt := coppice.Running()
				tree := rt.Snapshot()
				listed <- childrenOf(tree, "web")
				for _, c := range tree.Children {
					if c.Name != "web" {
						continue
					}
					pid := actors.ProcessPID(fmt.Sprint(c.Children[0].ID))
					if _, err := rt.System().Ask(ctx, rt.Lookup("watcher"), pid); err != nil {
						return err
					}
				}
				close(crash)
				<-ctx.Done()
				return nil
			}},
		},
		ListenerIsolation: coppice.GoroutineIsolation,
	}
	rt := runtimetest.Tree(t, cfg)
	if coppice.Running() != rt {
		t.Errorf("the tree that runs is %p, not %p", coppice.Running(), rt)
	}
	if got, want := <-listed, []string{"web/0", "web/1"}; !slices.Equal(got, want) {
		t.Errorf("the Func sees %q, want %q", got, want)
	}
	if d := <-downs; d.Reason.Err() == nil || d.Reason.Err().Error() == actors.ErrNoActor.Error() {
		t.Errorf("the actor gets %v", d.Reason)
	}
	if got := <-crashed; got != rt {
		t.Errorf("the hook has %p, want %p", got, rt)
	}
	size = 3
	if err := rt.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := childrenOf(rt.Snapshot(), "web"); !slices.Contains(got, "web/2") {
		t.Errorf("after a reload whose configuration wants 3 workers: %q", got)
	}
	if err := rt.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if coppice.Running() != nil {
		t.Error("a tree runs after its end")
	}
}

// TestRunOfRuntime: Run ends the tree with its context, and returns why the tree ended otherwise.
func TestRunOfRuntime(t *testing.T) {
	for _, row := range []struct {
		name string
		stop bool
	}{{"asked to end", true}, {"gives up", false}} {
		t.Run(row.name, func(t *testing.T) {
			fail := make(chan struct{})
			rt := runtimetest.Tree(t, coppice.Config{Children: []coppice.ChildSpec{coppice.Func{Name: "func", Run: func(ctx context.Context) error {
				select {
				case <-fail:
					return errors.New("broken")
				case <-ctx.Done():
					return nil
				}
			}}}})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if row.stop {
				cancel()
			} else {
				close(fail)
			}
			if err := rt.Run(ctx); (err == nil) != row.stop {
				t.Errorf("Run returned %v", err)
			}
		})
	}
}
