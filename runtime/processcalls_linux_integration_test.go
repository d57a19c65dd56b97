//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

func init() {
	trees["operated"] = func() coppice.Config {
		return coppice.Config{Load: loadOrder, Intensity: supervisor.Intensity{Max: 10, Period: time.Minute}, Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Size: 2, Worker: obedient, Intensity: supervisor.Intensity{Max: 10, Period: time.Minute}},
			coppice.Pool{Name: "job", Size: 1, Worker: idle, Restart: supervisor.Transient},
			coppice.Pool{Name: "guarded", Size: 1, Function: "guarded", Spares: 0},
			coppice.Pool{Name: "spared", Size: 1, Worker: idle, Spares: 1},
			coppice.Process{Name: "sleeper", Command: []string{"sleep", "1000"}},
			coppice.Process{Name: "once", Command: []string{"sleep", "1000"}, Restart: supervisor.Temporary},
			coppice.Func{Name: "clock", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
		}}
	}
}

// child returns the part of the tree at a path, which must be there.
func (p *runningTree) child(path string) coppice.Tree {
	p.t.Helper()
	c, ok := p.at(path)
	if !ok {
		p.t.Fatalf("there is no %s", path)
	}
	return c
}

// TestRestart: whatever has a name is replaced: workers without a gap and outside every budget, the
// rest with a gap. A worker whose successor fails works on, and there is no further try.
func TestRestart(t *testing.T) {
	setOrder("")
	path := guard(t)
	p := startTree(t, "operated")
	ctx, stop := context.WithCancel(t.Context())
	loaded := make(chan runtimetest.Counts, 1)
	url := "http://" + p.Listeners()[0].Addr.String()
	go func() { loaded <- runtimetest.Load{URL: url, InFlight: 2, Timeout: runtimetest.Patience}.Run(ctx) }()

	incarnations := func(of ...string) (sum int) {
		for _, path := range of {
			sum += p.child(path).Incarnation
		}
		return sum
	}
	if err := errors.Join(p.Scale(t.Context(), "web", 3), p.Scale(t.Context(), "web", 2)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name      func() string
		path      []string
		successor int // incarnations more
	}{
		{func() string { return "web/0" }, []string{"web/0"}, 1},
		{func() string { return strconv.Itoa(p.child("web/0").ID) }, []string{"web/0"}, 1},
		{func() string { return "web" }, []string{"web/0", "web/1"}, 2},
		{func() string { return "listener" }, []string{"listeners/listener"}, 1},
		{func() string { return "sleeper" }, []string{"sleeper"}, 1},
		{func() string { return "once" }, []string{"once"}, 0}, // a child like the first
		{func() string { return "clock" }, []string{"clock"}, 1},
		{func() string { return "guarded/0" }, []string{"guarded/0"}, 1},
	} {
		name, before, pid := row.name(), incarnations(row.path...), p.child(row.path[0]).PID
		if err := p.Restart(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := incarnations(row.path...) - before; n != row.successor || pid != 0 && p.child(row.path[0]).PID == pid {
			t.Errorf("%s: %d incarnations more, want %d", name, n, row.successor)
		}
	}
	both := make(chan error, 2)
	for range 2 {
		go func() { both <- p.Restart(t.Context(), "web/1") }()
	}
	if err := errors.Join(<-both, <-both); err != nil {
		t.Error(err)
	}
	stop()
	if c := <-loaded; c.OK == 0 || c.OK != c.Sent() {
		t.Error(c)
	}
	if n := p.child("web").Used + p.Snapshot().Used; n != 0 {
		t.Errorf("%d restarts were counted", n)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	old := p.child("guarded/0").ID
	err := p.Restart(t.Context(), "guarded/0")
	if err == nil || !strings.HasPrefix(err.Error(), "coppice: restart guarded/0: ") || !strings.HasSuffix(err.Error(), "the worker function returned an error: no guard") {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Restart(t.Context(), "web/0"); err != nil {
		t.Fatal(err)
	}
	if now := p.child("guarded/0"); now.ID != old || now.Incarnation != 2 {
		t.Errorf("after a restart that failed: %+v", now)
	}
	if err := p.Restart(t.Context(), "guarded"); err != nil || p.child("guarded/0").ID == old {
		t.Errorf("then: %v", err)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for what, err := range map[string]error{
		"restart": p.Restart(t.Context(), "web/2"), "stop": p.Stop(t.Context(), "web/7"), "kill": p.Kill(t.Context(), "web/7"),
		"restart of no child": p.Restart(t.Context(), "api"), "stop of a func": p.Stop(t.Context(), "clock"), "kill of a pool": p.Kill(t.Context(), "web"),
	} {
		if !errors.Is(err, coppice.ErrNoChild) || strings.Count(err.Error(), "coppice: ") != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	for name, says := range map[string]string{
		"web": "no process of that name; its role in the tree is pool, and its workers are web/0 and so on", "clock": "its role in the tree is func",
		"master": "reload replaces the other processes", "ghost": "no process of that name",
	} {
		if err := p.Kill(t.Context(), name); err == nil || !strings.HasPrefix(err.Error(), "coppice: kill "+name+": ") || !strings.Contains(err.Error(), says) {
			t.Errorf("kill %s: %v", name, err)
		}
	}
	if err := p.Restart(ended, "web/0"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestStopProcess: one process is stopped and has ended; its restart type says what follows.
func TestStopProcess(t *testing.T) {
	setOrder("")
	guard(t)
	p := startTree(t, "operated")
	for _, path := range []string{"web/0", "listeners/listener", "job/0", "sleeper", "once", "spared/spare"} {
		before := p.child(path)
		name := before.Name
		if err := p.Stop(t.Context(), name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if runtimetest.Alive(before.PID) {
			t.Errorf("%s has not ended", name)
		}
		now, ok := p.at(path)
		switch name {
		case "job/0":
			runtimetest.Eventually(t, "its supervisor leaves it down", func() bool { return p.child(path).State == "down" })
			if err := p.Restart(t.Context(), name); err != nil || p.child(path).State != "running" {
				t.Errorf("it is not started again: %v", err)
			}
		case "once":
			if ok {
				t.Errorf("%s: %+v", name, now)
			}
		case "spared/spare":
			runtimetest.Eventually(t, "another spare", func() bool { now, ok := p.at(path); return ok && now.ID != before.ID })
		default:
			if !ok || now.State != "running" || now.PID == before.PID {
				t.Errorf("%s: %+v", name, now)
			}
		}
	}
	if n := p.child("web").Used + p.Snapshot().Used; n != 0 {
		t.Errorf("%d restarts were counted", n)
	}
}

// TestKillProcess: one process is killed, its exit reason says by whom, and its supervisor replaces
// it.
func TestKillProcess(t *testing.T) {
	setOrder("")
	guard(t)
	p := startTree(t, "operated")
	for _, path := range []string{"web/1", "listeners/listener", "job/0", "sleeper"} {
		before := p.child(path)
		if err := p.Kill(t.Context(), before.Name); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if runtimetest.Alive(before.PID) {
			t.Errorf("%s has not ended", path)
		}
		runtimetest.Eventually(t, path+" is back", func() bool {
			now, ok := p.at(path)
			return ok && now.State == "running" && now.PID != before.PID
		})
		if now := p.child(path); now.LastExit != "killed: by the operator" {
			t.Errorf("%s: last exit %q", path, now.LastExit)
		}
	}
	if n := p.child("web").Used; n != 1 {
		t.Errorf("%d restarts were counted, want 1", n)
	}
}

// TestRestartGoesOn: a caller that waits no longer ends its wait alone: what it had stopped is
// started again.
func TestRestartGoesOn(t *testing.T) {
	p := startTree(t, "slow to stop")
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan error, 1)
	go func() { told <- p.Restart(ctx, "slow") }()
	<-slowStops
	cancel()
	if err := <-told; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	slowStopped <- struct{}{}
	runtimetest.Eventually(t, "the next incarnation", func() bool {
		c := p.child("slow")
		return c.State == coppice.StateRunning && c.Incarnation == 2
	})
	go func() { <-slowStops; slowStopped <- struct{}{} }() // at the end of the tree
}

var slowStops, slowStopped = make(chan struct{}), make(chan struct{})

func init() {
	trees["slow to stop"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Func{Name: "slow", Run: func(ctx context.Context) error {
			<-ctx.Done()
			slowStops <- struct{}{}
			<-slowStopped
			return nil
		}}}}
	}
}

// TestFailedChildIsForgotten: a child whose start fails after its caller has stopped waiting leaves
// nothing.
func TestFailedChildIsForgotten(t *testing.T) {
	p := startTree(t, "slow to stop")
	ctx, cancel := context.WithCancel(t.Context())
	starts, fail, told := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		told <- p.StartChild(ctx, "", coppice.Actor{Name: "ghost", New: func() actor.Actor {
			close(starts)
			<-fail
			panic("as asked")
		}})
	}()
	<-starts
	cancel()
	if err := <-told; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(fail)
	runtimetest.Eventually(t, "the child to be forgotten", func() bool {
		return errors.Is(p.Restart(t.Context(), "ghost"), coppice.ErrNoChild)
	})
	go func() { <-slowStops; slowStopped <- struct{}{} }() // at the end of the tree
}

// TestRestartOfRemoved: a slot that is removed gets no other worker, and nobody waits for one while
// its last worker drains.
func TestRestartOfRemoved(t *testing.T) {
	setOrder("serve, park never")
	p := startTree(t, "reloads, drains two")
	if err := p.Scale(t.Context(), "web", 2); err != nil {
		t.Fatal(err)
	}
	for range 2 { // one of each worker
		p.keepAlive().closes()
	}
	if err := p.Scale(t.Context(), "web", 1); err != nil {
		t.Fatal(err)
	}
	before := p.child("web/0").Incarnation
	if err := p.Restart(t.Context(), "web/1"); !errors.Is(err, coppice.ErrNoChild) {
		t.Errorf("%v", err)
	}
	if err := p.Restart(t.Context(), "web"); err != nil || p.child("web/0").Incarnation != before+1 {
		t.Errorf("%v; %+v", err, p.child("web/0"))
	}
}
