package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// A WorkerRun is a worker function that runs in a test, without a process of its own.
type WorkerRun struct {
	// Tree is the tree around it, to ask its actors, to reload it; nil if the function returned
	// before it was ready.
	Tree *coppice.Runtime

	t       testing.TB
	ended   chan struct{}
	err     error // set before ended
	awaited bool  // by the test
}

// Worker runs fn once, as the worker "worker/0" of a tree of goroutines, and returns when it is
// ready or has returned. Its Worker is a real one: its configuration is what cfg.Load returns, its
// listeners by name, its actors and the other pools are those of cfg.Children, which may be empty.
// Pools of cfg that are to run in the test's process too have GoroutineIsolation. A panic of fn
// ends it as an error. fn is not started again, but by a reload.
//
// The end of the test stops fn, and fails the test if fn returns an error which the test has not
// asked for by Stop or Wait. As for [Tree], there is one tree at a time.
func Worker(t testing.TB, fn coppice.WorkerFunc, cfg coppice.Config) *WorkerRun {
	t.Helper()
	r := &WorkerRun{t: t, ended: make(chan struct{})}
	cfg.ListenerIsolation = coppice.GoroutineIsolation
	cfg.Children = append(append([]coppice.ChildSpec(nil), cfg.Children...), coppice.Pool{
		Name: "worker", Size: 1, Isolation: coppice.GoroutineIsolation, Restart: supervisor.Temporary, Worker: r.wrap(fn),
	})
	rt, err := startTree(t, cfg)
	r.Tree = rt
	select {
	case <-r.ended:
	default:
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if !r.awaited {
			if err := r.Stop(); err != nil {
				t.Errorf("the worker function returned: %v", err)
			}
		}
	})
	return r
}

// wrap returns fn with a record of its first end.
func (r *WorkerRun) wrap(fn coppice.WorkerFunc) coppice.WorkerFunc {
	var once sync.Once
	return func(ctx context.Context, w *coppice.Worker) (err error) {
		err = errors.New("it ended its goroutine")
		defer func() {
			if v := recover(); v != nil {
				err = fmt.Errorf("panic: %v\n\n%s", v, debug.Stack())
			}
			once.Do(func() {
				r.err = err
				close(r.ended)
			})
		}()
		return fn(ctx, w)
	}
}

// Addr returns the address of the only listener, or of the first: host:port, or a path.
func (r *WorkerRun) Addr() string {
	r.t.Helper()
	if r.Tree == nil {
		r.t.Fatalf("the worker function returned: %v", r.err)
	}
	listeners := r.Tree.Listeners()
	if len(listeners) == 0 {
		r.t.Fatal("the worker function has no listener")
	}
	return listeners[0].Addr.String()
}

// Stop asks the worker to stop, as the end of its pool does, and returns what fn returned.
func (r *WorkerRun) Stop() error {
	r.t.Helper()
	if r.Tree != nil {
		if err := shutdown(r.Tree); err != nil {
			r.t.Errorf("the end of the tree: %v", err)
		}
	}
	return r.Wait()
}

// Wait waits for the end of fn and returns what it returned.
func (r *WorkerRun) Wait() error {
	r.t.Helper()
	r.awaited = true
	select {
	case <-r.ended:
		return r.err
	case <-time.After(Patience):
		r.t.Fatalf("the worker function has not returned within %v", Patience)
		return nil
	}
}
