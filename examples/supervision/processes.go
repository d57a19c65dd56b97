package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// strategies are those of the three branches.
var strategies = []supervisor.Strategy{supervisor.OneForOne, supervisor.OneForAll, supervisor.RestForOne}

// branches is one tree with a branch for each strategy, and in each branch everything
// that can be a child: it is the same in the master and in the workers.
func branches(self string, out io.Writer) coppice.Config {
	budget := supervisor.Intensity{Max: 10, Period: time.Minute}
	cfg := coppice.Config{
		Intensity: budget, Output: out,
		Logger: slog.New(slog.DiscardHandler), // what happens is printed here
	}
	for _, s := range strategies {
		cfg.Children = append(cfg.Children, coppice.Supervisor{Name: s.String(), Strategy: s, Intensity: budget, Children: []coppice.ChildSpec{
			coppice.Func{Name: "clock", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
			coppice.Actor{Name: "counter", New: func() actor.Actor { return &counter{} }},
			coppice.Pool{Name: "web", Size: 3, Strategy: s, Intensity: budget, Worker: idle},
			// This program, but not as a worker.
			coppice.Process{Name: "own", Command: []string{self, "-wait"}, Ready: coppice.Ready{Line: "waiting"}},
			coppice.Process{Name: "sleep", Command: []string{"sleep", "3600"}},
			// It ignores SIGTERM, so it is killed when its time is over.
			coppice.Process{
				Name: "deaf", Command: []string{"sh", "-c", `trap "" TERM; echo deaf; while :; do sleep 1; done`},
				Ready: coppice.Ready{Line: "deaf"}, Shutdown: 200 * time.Millisecond,
			},
			// It is done at once. What it leaves behind in its process group is ended after it.
			coppice.Process{Name: "forks", Command: []string{"sh", "-c", "sleep 3600 & echo left behind: $!"}, Restart: supervisor.Transient},
		}})
	}
	return cfg
}

// idle is a worker that is ready and waits to be stopped.
func idle(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// wait is this program as a child that is no worker: it waits for SIGTERM.
func wait() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("waiting")
	<-c
}

// life is what identifies one incarnation of a child: a process number, or how
// many times it was started.
type life struct{ pid, incarnation int }

func (l life) String() string {
	if l.pid != 0 {
		return fmt.Sprintf("pid %d", l.pid)
	}
	return fmt.Sprintf("start %d", l.incarnation)
}

// lives returns the running children below branch, by their names without it.
func lives(rt *coppice.Runtime, branch string) map[string]life {
	all := map[string]life{}
	for _, b := range rt.Snapshot().Children {
		if b.Name != branch {
			continue
		}
		b.Walk(func(t coppice.Tree) {
			name := strings.TrimPrefix(t.Name, branch+"/")
			if len(t.Children) == 0 && t.State == coppice.StateRunning {
				all[name] = life{t.PID, t.Incarnation}
			}
		})
	}
	return all
}

// replaced returns the children that OTP replaces under strategy s, in start order, when one of
// group is killed.
func replaced(s supervisor.Strategy, group []string, killed string) []string {
	at := slices.Index(group, killed)
	switch s {
	case supervisor.OneForAll:
		return group
	case supervisor.RestForOne:
		return group[at:]
	case supervisor.OneForOne, supervisor.Dynamic:
	}
	return group[at : at+1]
}

// processes kills slot 1 of 3, once of the pool and once of the branch's own
// processes, under each strategy, and prints what was replaced.
func processes(ctx context.Context, out io.Writer) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	rt, err := coppice.Start(ctx, branches(self, out)) // in a worker it does not return
	if err != nil {
		return err
	}
	err = kills(ctx, rt, out)
	if serr := rt.Shutdown(ctx); err == nil {
		err = serr
	}
	return err
}

// slots are the workers of a branch's pool, members all its own children that last,
// with the workers in the place of their pool.
var (
	slots   = []string{"web/0", "web/1", "web/2"}
	members = []string{"clock", "counter", "web/0", "web/1", "web/2", "own", "sleep", "deaf"}
)

func kills(ctx context.Context, rt *coppice.Runtime, out io.Writer) error {
	for _, s := range strategies {
		for _, kill := range []struct {
			name  string
			group []string
		}{{"web/1", slots}, {"sleep", members}} {
			if err := killOne(ctx, rt, out, s, kill.name, replaced(s, kill.group, kill.name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// killOne kills one child, waits until all of want have been replaced, and prints all
// children. It is an error when others have been replaced, too.
func killOne(ctx context.Context, rt *coppice.Runtime, out io.Writer, s supervisor.Strategy, name string, want []string) error {
	branch := s.String()
	before := lives(rt, branch)
	events := rt.Events(coppice.FromNow)
	fmt.Fprintf(out, "\n== %s: kill -9 %s (%v)\n", s, name, before[name])
	victim, err := os.FindProcess(before[name].pid)
	if err != nil {
		return err
	}
	if err := victim.Kill(); err != nil {
		return err
	}
	var after map[string]life
	for {
		after = lives(rt, branch)
		if !slices.ContainsFunc(want, func(n string) bool { return after[n] == before[n] || after[n] == life{} }) {
			break
		}
		if _, err := events.Next(ctx); err != nil { // then there is something new to see
			return err
		}
	}
	var changed []string
	for _, n := range members {
		if after[n] == before[n] {
			fmt.Fprintf(out, "   %-8s %v\n", n, after[n])
			continue
		}
		changed = append(changed, n)
		fmt.Fprintf(out, " * %-8s %v, was %v\n", n, after[n], before[n])
	}
	fmt.Fprintf(out, "%s %s: replaced %s\n", s, name, strings.Join(changed, " "))
	if !slices.Equal(changed, want) {
		return fmt.Errorf("%s: replaced %v, OTP replaces %v", s, changed, want)
	}
	return nil
}
