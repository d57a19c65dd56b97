//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// idle is a worker function that is ready and waits to be stopped.
func idle(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func init() {
	trees["asks"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			// echo answers at once, "silence" never.
			_, err := w.System().Spawn(ctx, "echo", func() actor.Actor {
				return actor.ReceiveFunc(func(ctx actor.Context) {
					if s, ok := ctx.Message().(string); ok && s != "silence" {
						ctx.Respond(s)
					}
				})
			})
			if err != nil {
				return err
			}
			tree, err := w.Tree(ctx) // the other way round
			if err != nil {
				return err
			}
			if err := tell(ctx, w, workerReport{Text: tree.Name}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
	trees["panics once asked"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			lit := make(chan struct{})
			_, err := w.System().Spawn(ctx, "fuse", func() actor.Actor {
				return actor.ReceiveFunc(func(ctx actor.Context) {
					if ctx.Message() == "light" {
						close(lit)
					}
				})
			})
			if err != nil {
				return err
			}
			if err := tell(ctx, w, workerReport{}); err != nil {
				return err
			}
			select {
			case <-lit:
				panic("lit")
			case <-ctx.Done():
				return nil
			}
		})
	}
	trees["tree within the tree"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			_, err := coppice.Start(ctx, pool(1, idle))
			r := workerReport{Text: "no error"}
			if err != nil {
				r.Text = err.Error()
			}
			if !errors.Is(err, coppice.ErrInChild) {
				r.Error = "not ErrInChild"
			}
			if err := tell(ctx, w, r); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
	trees["never ready"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 1, StartTimeout: 200 * time.Millisecond,
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				<-ctx.Done()
				return nil
			},
		}}}
	}
	trees["grandchild"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			out, err := exec.Command("sh", "-c", "ls -l /proc/self/fd; env").CombinedOutput()
			if err != nil {
				return err
			}
			if err := tell(ctx, w, workerReport{Text: string(out)}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
	}
	trees["programs"] = func() coppice.Config {
		return coppice.Config{Intensity: supervisor.Intensity{Max: 5, Period: time.Minute}, Children: []coppice.ChildSpec{
			coppice.Process{Name: "sleep", Command: []string{"sleep", "3600"}},
			coppice.Func{Name: "func", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
			coppice.Supervisor{Name: "below", Children: []coppice.ChildSpec{
				coppice.Process{Name: "sleep", Command: []string{"sleep", "3600"}},
				coppice.Pool{Name: "web", Size: 1, Worker: idle},
			}},
		}}
	}
	trees["missing program"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Process{Name: "nil", Command: []string{"/nonexistent/program"}}}}
	}
}

// TestAsk: a worker asks the master, the master asks an actor in a worker by its
// path, and an ask that is in flight when the process is killed fails at once.
func TestAsk(t *testing.T) {
	p := startTree(t, "asks")
	if r := p.reported(1)[0]; r.Text != "master" {
		t.Errorf("the worker asked the master for the tree and got %q", r.Text)
	}
	echo := p.Lookup("web/0/echo")
	if answer, err := p.System().Ask(t.Context(), echo, "hello"); answer != "hello" || err != nil {
		t.Fatalf("answer %v, error %v", answer, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := p.System().Ask(ctx, echo, "silence")
		failed <- err
	}()
	// Asks of one sender stay in order: once this is answered, that has been taken.
	if _, err := p.System().Ask(ctx, echo, "sync"); err != nil {
		t.Fatal(err)
	}
	pid := p.pid("web/0")
	killed := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := <-failed
	t.Logf("kill to error: %v", time.Since(killed))
	if !errors.Is(err, actors.ErrDown) {
		t.Errorf("error %v, want ErrDown", err)
	}
	// The PID stands for the name: it reaches the replacement.
	runtimetest.Eventually(t, "the replacement answers", func() bool {
		answer, err := p.System().Ask(ctx, echo, "again")
		return answer == "again" && err == nil
	})
}

// pid returns the process of the child with a registered name.
func (p *runningTree) pid(name string) int {
	p.t.Helper()
	return runtimetest.PID(p.t, p.Runtime, name)
}

// TestTreeWithinTree: a worker that starts a tree by mistake gets an error (P69).
func TestTreeWithinTree(t *testing.T) {
	p := startTree(t, "tree within the tree")
	if r := p.reported(1)[0]; r.Error != "" {
		t.Errorf("Start in a worker: %s: %s", r.Error, r.Text)
	}
}

// TestNeverReady: a worker that is not ready in time is killed, and the error names it.
func TestNeverReady(t *testing.T) {
	t.Setenv(treeVar, "never ready")
	_, err := coppice.Start(t.Context(), withReports(trees["never ready"](), nil))
	if !errors.Is(err, coppice.ErrNotReady) || !strings.Contains(err.Error(), "web/0") {
		t.Errorf("error %v", err)
	}
	if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 {
		t.Errorf("children left: %v", kids)
	}
}

// TestGrandchild: a process that a worker starts inherits neither descriptors nor marker variables
// (P15, P32).
func TestGrandchild(t *testing.T) {
	p := startTree(t, "grandchild")
	out := p.reported(1)[0].Text
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		if strings.HasPrefix(name, "COPPICE_CH") {
			t.Errorf("variable %s", line)
		}
		if strings.Contains(line, "socket:") || strings.Contains(line, "memfd") {
			t.Errorf("descriptor %s", line)
		}
	}
}

// TestMixedTree: programs, functions, supervisors and pools under one root: a child that is killed
// comes back, the others stay.
func TestMixedTree(t *testing.T) {
	p := startTree(t, "programs")
	before := p.processes()
	sub := p.Events(coppice.FromNow)
	if err := syscall.Kill(p.pid("below/sleep"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for ev := range sub.All(t.Context()) {
		if ev.Kind == coppice.ChildStarted && ev.Path == "below/sleep" {
			break
		}
	}
	after := p.processes()
	for name, pid := range before {
		if changed := after[name] != pid; changed != (name == "below/sleep") {
			t.Errorf("%s was %d, is %d", name, pid, after[name])
		}
	}
}

// processes are all the processes of the tree, by name.
func (p *runningTree) processes() map[string]int {
	pids := map[string]int{}
	p.Snapshot().Walk(func(n coppice.Tree) {
		if n.PID != 0 {
			pids[n.Name] = n.PID
		}
	})
	return pids
}

// TestMissingProgram: a program that is not there is a start error that names it.
func TestMissingProgram(t *testing.T) {
	_, err := coppice.Start(t.Context(), withReports(trees["missing program"](), nil))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(fmt.Sprint(err), "/nonexistent/program") {
		t.Errorf("error %v", err)
	}
}

// TestRunning: one tree a program.
func TestRunning(t *testing.T) {
	p := startTree(t, "programs")
	if _, err := coppice.Start(t.Context(), pool(1, idle)); !errors.Is(err, coppice.ErrRunning) {
		t.Errorf("error %v, want ErrRunning", err)
	}
	if p.Snapshot().State != "running" {
		t.Errorf("the first tree is %s", p.Snapshot().State)
	}
}
