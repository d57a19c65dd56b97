//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// guardVar is the variable with the path of a file: without it the workers of the function guarded
// fail, and a program does not register the function late.
const guardVar = "COPPICE_TEST_GUARD"

func guardedIn() bool {
	_, err := os.Stat(os.Getenv(guardVar))
	return err == nil
}

// guard makes the file of guardVar, and returns its path.
func guard(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guard")
	t.Setenv(guardVar, path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var registerLate = sync.OnceFunc(func() { coppice.RegisterFunction("late", obedient) })

func init() {
	coppice.RegisterFunction("obedient", obedient)
	coppice.RegisterFunction("guarded", func(ctx context.Context, w *coppice.Worker) error {
		if !guardedIn() {
			return errors.New("no guard")
		}
		return idle(ctx, w)
	})
	wait := coppice.Func{Name: "wait", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }}
	trees["children at run time"] = func() coppice.Config {
		if guardedIn() {
			registerLate()
		}
		return coppice.Config{
			Load: loadOrder,
			Children: []coppice.ChildSpec{
				coppice.Supervisor{Name: "group", Intensity: supervisor.Intensity{Max: 0, Period: time.Second}, Children: []coppice.ChildSpec{
					wait, coppice.Func{Name: "fails", Run: func(ctx context.Context) error {
						select {
						case <-failGroup:
							return errors.New("as asked")
						case <-ctx.Done():
							return nil
						}
					}},
				}},
			},
			Intensity: supervisor.Intensity{Max: 10, Period: time.Second},
		}
	}
	trees["a func that starts a pool"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.Func{Name: "manager", Restart: supervisor.Temporary, Run: func(ctx context.Context) error {
				return coppice.Running().StartChild(ctx, "", coppice.Pool{Name: "web", Size: 1, Function: "obedient"})
			}},
			coppice.Pool{Name: "slow", Size: 1, Worker: idle},
		}}
	}
	trees["no listener at first"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{wait}}
	}
}

// failGroup makes the child fails of the group fail.
var failGroup = make(chan struct{})

// at returns the part of the tree at a path.
func (p *runningTree) at(path string) (t coppice.Tree, ok bool) {
	t = p.Snapshot()
	for name := range strings.SplitSeq(path, "/") {
		i := slices.IndexFunc(t.Children, func(c coppice.Tree) bool { return c.Name == name || strings.HasSuffix(c.Name, "/"+name) }) // of a Process it is the path
		if i < 0 {
			return t, false
		}
		t = t.Children[i]
	}
	return t, true
}

// addedKinds are specs of each kind that can be added, by their role in the tree.
func addedKinds() map[coppice.Role]coppice.ChildSpec {
	return map[coppice.Role]coppice.ChildSpec{
		"pool":    coppice.Pool{Name: "x", Size: 2, Function: "obedient"},
		"func":    coppice.Func{Name: "x", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
		"actor":   coppice.Actor{Name: "x", New: func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) }},
		"process": coppice.Process{Name: "x", Command: []string{"sleep", "1000"}},
		"supervisor": coppice.Supervisor{Name: "x", Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "l", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.Pool{Name: "p", Size: 1, Function: "obedient"},
		}},
		"listener": coppice.ListenerSpec{Name: "x", Network: "tcp", Address: "127.0.0.1:0"},
	}
}

// TestChildCalls: a child of each kind is started, terminated, restarted and deleted, below the
// root and below a supervisor, with OTP's answers.
func TestChildCalls(t *testing.T) {
	setOrder("")
	p := startTree(t, "children at run time")
	ctx := t.Context()
	want := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	for role, spec := range addedKinds() {
		for _, parent := range []string{"group", ""} {
			if parent == "" && testing.Short() {
				continue // the root is a supervisor as the other
			}
			path := strings.TrimPrefix(parent+"/x", "/")
			for round := range 2 {
				what := fmt.Sprintf("%s %s, round %d", role, path, round)
				if err := p.StartChild(ctx, parent, spec); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if c, ok := p.at(path); !ok || c.Role != role || c.State != "running" {
					t.Errorf("%s: %+v", what, c)
				}
				want(what+", start", p.StartChild(ctx, parent, spec), supervisor.ErrAlreadyStarted)
				want(what+", restart", p.RestartChild(ctx, path), supervisor.ErrRunning)
				want(what+", delete", p.DeleteChild(ctx, path), supervisor.ErrRunning)
				if err := p.TerminateChild(ctx, path); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if c, ok := p.at(path); !ok || c.State != "down" {
					t.Errorf("%s: terminated: %+v", what, c)
				}
				want(what+", start", p.StartChild(ctx, parent, spec), supervisor.ErrAlreadyPresent)
				if err := p.RestartChild(ctx, path); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if c, ok := p.at(path); !ok || c.State != "running" {
					t.Errorf("%s: restarted: %+v", what, c)
				}
				if err := errors.Join(p.TerminateChild(ctx, path), p.DeleteChild(ctx, path)); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if c, ok := p.at(path); ok {
					t.Errorf("%s: deleted: %+v", what, c)
				}
				want(what+", terminate", p.TerminateChild(ctx, path), supervisor.ErrNotFound)
				want(what+", restart", p.RestartChild(ctx, path), supervisor.ErrNotFound)
				want(what+", delete", p.DeleteChild(ctx, path), supervisor.ErrNotFound)
			}
		}
	}
	empty := p.StartChild(ctx, "group", coppice.Supervisor{Name: "many"})
	if err := errors.Join(empty, p.StartChild(ctx, "group/many", addedKinds()["actor"])); err != nil {
		t.Fatalf("a supervisor that begins without children: %v", err)
	}
	if c, ok := p.at("group/many/x"); !ok || c.State != "running" {
		t.Errorf("a supervisor that begins without children: %+v", c)
	}
	if err := errors.Join(p.TerminateChild(ctx, "group/many"), p.DeleteChild(ctx, "group/many")); err != nil {
		t.Fatal(err)
	}
	if n := len(p.Listeners()); n != 0 {
		t.Errorf("%d sockets are left", n)
	}

	temporary := coppice.Process{Name: "once", Command: []string{"sleep", "1000"}, Restart: supervisor.Temporary}
	for range 2 {
		if err := errors.Join(p.StartChild(ctx, "", temporary), p.TerminateChild(ctx, "once")); err != nil {
			t.Fatal(err)
		}
		want("a temporary child", p.RestartChild(ctx, "once"), supervisor.ErrNotFound)
	}
	want("a temporary child", p.StartChild(ctx, "", temporary), nil)
	for range 20 { // the end of the one before does not take it out of the tree
		want("a temporary child", p.Restart(ctx, "once"), nil)
		want("a temporary child that was replaced", p.RestartChild(ctx, "once"), supervisor.ErrRunning)
	}
	want("a temporary child", p.TerminateChild(ctx, "once"), nil)
	for what, err := range map[string]error{
		"the supervisor of the listener process": p.TerminateChild(ctx, "listeners"),
		"a parent that is not there":             p.StartChild(ctx, "nowhere", temporary),
		"a parent that is no supervisor":         p.StartChild(ctx, "group/wait", temporary),
		"the root":                               p.TerminateChild(ctx, ""),
	} {
		want(what, err, supervisor.ErrNotFound)
	}
}

// TestChildNotStarted: a child that does not start is not kept, and the error is its own.
func TestChildNotStarted(t *testing.T) {
	setOrder("")
	guardPath := guard(t)
	p := startTree(t, "children at run time")
	if err := os.Remove(guardPath); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err := p.StartChild(t.Context(), "group", coppice.Pool{Name: "x", Size: 1, Function: "guarded"})
		if err == nil || !strings.HasPrefix(err.Error(), "coppice: group/x/0 did not start: the worker function returned an error: no guard") {
			t.Errorf("%v", err)
		}
		// Its program knows no such function any more: the caller hears of it at once.
		err = p.StartChild(t.Context(), "", coppice.Pool{Name: "x", Size: 1, Function: "late"})
		if err == nil || !strings.Contains(err.Error(), "has not registered the function late, which the pool x of its master runs") {
			t.Errorf("%v", err)
		}
	}
	if c, ok := p.at("group/x"); ok {
		t.Errorf("it was kept: %+v", c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := p.StartChild(ctx, "", addedKinds()["func"])
	if _, ok := p.at("x"); ok || !errors.Is(err, context.Canceled) {
		t.Errorf("started for a caller that had left: %v, %v", ok, err)
	}
}

// TestBadChildren: what Start would refuse is refused, and what only a tree from its start can
// have, by path and field.
func TestBadChildren(t *testing.T) {
	setOrder("")
	p := startTree(t, "children at run time")
	check := func(context.Context, *coppice.Worker) error { return nil }
	for want, spec := range map[string]coppice.ChildSpec{
		"group Children[0]": nil,
		"group/a/b Name":    coppice.Func{Name: "a/b", Run: func(context.Context) error { return nil }},
		"group/x Worker":    coppice.Pool{Name: "x", Worker: idle},
		"group/x Worker ":   coppice.Pool{Name: "x"},
		"group/x Function":  coppice.Pool{Name: "x", Function: "nothing"},
		"group/x Function ": coppice.Pool{Name: "x", Function: "obedient", Worker: idle, Isolation: coppice.GoroutineIsolation},
		"group/x Prepare":   coppice.Pool{Name: "x", Function: "obedient", Prepare: check},
		"group/x Liveness.Check": coppice.Pool{
			Name: "x", Function: "obedient", Liveness: coppice.Liveness{Check: check},
		},
		"group/x Size":        coppice.Pool{Name: "x", Function: "obedient", Size: 4097},
		"group/x/l Hooks":     coppice.Supervisor{Name: "x", Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "l", Network: "tcp", Address: ":0", Policy: coppice.Custom, Hooks: coppice.ListenerHooks{Picker: slotOne{}}}}},
		"group/x Command":     coppice.Process{Name: "x"},
		" RLIMIT_NOFILE":      coppice.Pool{Name: "x", Function: "obedient", Size: 4096, Spares: 4096},
		"group/x Environment": coppice.Pool{Name: "x", Worker: idle, Isolation: coppice.GoroutineIsolation, Environment: coppice.Environment{Nice: 1}},
	} {
		if want == " RLIMIT_NOFILE" {
			var limit syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 50_000 {
				continue
			}
		}
		err := p.StartChild(t.Context(), "group", spec)
		invalid, ok := errors.AsType[*coppice.InvalidError](err)
		if !ok || invalid.Path+" "+invalid.Field != strings.TrimRight(want, " ") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := p.StartChild(t.Context(), "", coppice.Func{Name: "listeners", Run: func(context.Context) error { return nil }}); err == nil {
		t.Error("the tree's own name is taken")
	}
	for what, register := range map[string]func(){
		"twice":      func() { coppice.RegisterFunction("obedient", idle) },
		"nil":        func() { coppice.RegisterFunction("nil", nil) },
		"a bad name": func() { coppice.RegisterFunction("a b", idle) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("registered: %s", what)
				}
			}()
			register()
		}()
	}
}

// TestAddedPool: a pool of processes that is added under load serves, is scaled, restarted, killed
// and reloaded like one of the tree, and no client is refused before it is terminated.
func TestAddedPool(t *testing.T) {
	setOrder("")
	p := startTree(t, "no listener at first")
	if err := p.StartChild(t.Context(), "", coppice.Pool{Name: "web", Size: 2, Function: "obedient", Liveness: coppice.Liveness{Path: "/"}}); err != nil {
		t.Fatal(err)
	}
	addr := p.Listeners()[0].Addr.String()
	ctx, stop := context.WithCancel(t.Context())
	loaded := make(chan runtimetest.Counts, 1)
	go func() {
		loaded <- runtimetest.Load{URL: "http://" + addr, InFlight: 2, Timeout: runtimetest.Patience}.Run(ctx)
	}()
	second := p.StartChild(t.Context(), "", coppice.Pool{Name: "api", Size: 1, Function: "obedient"})
	if err := errors.Join(second, p.Scale(t.Context(), "web", 3), p.Restart(t.Context(), "web/1")); err != nil {
		t.Fatal(err)
	}
	p.wantSize(3)
	p.mustReload()
	if err := p.TerminateChild(t.Context(), "api"); err != nil {
		t.Fatal(err)
	}
	if err := p.RestartChild(t.Context(), "api"); err != nil {
		t.Fatal(err)
	}
	p.wantGenerations(2, 2, 2, 2)
	stop()
	if c := <-loaded; c.OK == 0 || c.OK != c.Sent() {
		t.Error(c)
	}

	old := p.slots()["web/0"]
	if err := syscall.Kill(old.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "another worker has its place", func() bool {
		now := p.slots()["web/0"]
		return now.ID != old.ID && now.State == "running" && now.Generation == 2
	})
	get(t, addr)
	if err := errors.Join(p.TerminateChild(t.Context(), "web"), p.RestartChild(t.Context(), "web")); err != nil {
		t.Fatal(err)
	}
	p.wantSize(3) // until it is deleted
	if err := errors.Join(p.TerminateChild(t.Context(), "web"), p.DeleteChild(t.Context(), "web")); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "clients are refused", func() bool { _, err := answerOf(addr); return errors.Is(err, syscall.ECONNREFUSED) })
	if err := p.StartChild(t.Context(), "", coppice.Pool{Name: "web", Size: 1, Function: "obedient"}); err != nil {
		t.Fatal(err)
	}
	p.wantSize(1)
	p.wantLog(map[string]int{"a child declares other values": 0, "level=WARN": 0, "level=ERROR": 1}) // the kill
}

// TestChildOfFunc: a func that starts a child as the tree starts waits for the tree.
func TestChildOfFunc(t *testing.T) {
	p := startTree(t, "a func that starts a pool")
	runtimetest.Eventually(t, "the pool", func() bool { c, ok := p.at("web/0"); return ok && c.State == "running" })
	var names []string
	for _, c := range p.Snapshot().Children {
		names = append(names, c.Name)
	}
	if i, j := slices.Index(names, "slow"), slices.Index(names, "web"); i < 0 || j < i {
		t.Errorf("children %v", names)
	}
}

// TestReloadWithoutFunction: a reload to a program that has not registered a function that the tree
// runs fails with one line, before a worker is replaced; without the pool it does not.
func TestReloadWithoutFunction(t *testing.T) {
	setOrder("")
	path := guard(t)
	p := startTree(t, "children at run time")
	for _, spec := range []coppice.ChildSpec{
		coppice.Pool{Name: "first", Size: 1, Function: "obedient"}, coppice.Pool{Name: "web", Size: 1, Function: "late"},
	} {
		if err := p.StartChild(t.Context(), "", spec); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	before := p.slots()
	err := p.failReload()
	const want = "coppice: reload to generation 2 failed: first/0: the new program has not registered the function late (RegisterFunction), which a pool of the tree runs: " +
		"a reload cannot change that: restart the program, or delete the pool"
	if err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	for name, w := range p.slots() {
		if w.ID != before[name].ID {
			t.Errorf("%s was replaced", name)
		}
	}
	if err := errors.Join(p.TerminateChild(t.Context(), "web"), p.DeleteChild(t.Context(), "web")); err != nil {
		t.Fatal(err)
	}
	p.mustReload()
}

// TestAddedIsLost: a supervisor that is restarted has the children of its spec again, as in OTP.
func TestAddedIsLost(t *testing.T) {
	setOrder("")
	p := startTree(t, "children at run time")
	ctx := t.Context()
	added := coppice.Pool{Name: "added", Size: 1, Function: "obedient"}
	err := errors.Join(p.TerminateChild(ctx, "group/wait"), p.DeleteChild(ctx, "group/wait"), p.StartChild(ctx, "group", added))
	if err != nil {
		t.Fatal(err)
	}
	text := p.Describe()
	failGroup <- struct{}{}
	runtimetest.Eventually(t, "the group is restarted", func() bool { _, ok := p.at("group/wait"); return ok })
	if _, ok := p.at("group/added"); ok {
		t.Error("the child that was added is still there")
	}
	if now := p.Describe(); !strings.Contains(text, "group/added Pool\n") || strings.Contains(now, "added") || !strings.Contains(now, "group/wait Func\n") {
		t.Errorf("before\n%s\nnow\n%s", text, now)
	}
	if err := p.StartChild(ctx, "group", added); err != nil {
		t.Error(err)
	}
}

// TestChildCallsAtOnce: of calls at once for one name one starts the child; calls during a reload
// and during the shutdown have an answer, and nothing is left.
func TestChildCallsAtOnce(t *testing.T) {
	setOrder("")
	p := startTree(t, "children at run time")
	started := func(name string, n int) (ok int, errs []error) {
		results := make(chan error, n)
		for range n {
			go func() {
				results <- p.StartChild(t.Context(), "", coppice.Pool{Name: name, Size: 1, Function: "obedient"})
			}()
		}
		for range n {
			if err := <-results; err == nil {
				ok++
			} else {
				errs = append(errs, err)
			}
		}
		return ok, errs
	}
	n, errs := started("web", 4)
	for _, err := range errs {
		if !errors.Is(err, supervisor.ErrAlreadyStarted) {
			t.Error(err)
		}
	}
	if n != 1 {
		t.Errorf("%d calls started it", n)
	}

	reloaded := make(chan error, 1)
	go func() { reloaded <- p.Reload(t.Context()) }()
	if n, errs := started("late", 1); n != 1 {
		t.Error(errs)
	}
	if err := <-reloaded; err != nil {
		t.Error(err)
	}
	runtimetest.Eventually(t, "all are of one generation", func() bool {
		g := p.generations()
		return len(g) == 2 && g[0] == 2 && g[1] == 2
	})

	ending := make(chan error, 1)
	go func() { ending <- p.Shutdown(t.Context()) }()
	for i := 0; ; i++ {
		_, errs := started(fmt.Sprint("last", i), 2)
		stopped := slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, supervisor.ErrStopped) })
		for _, err := range errs {
			_, failed := errors.AsType[*supervisor.StartError](err)
			if !errors.Is(err, supervisor.ErrStopped) && !errors.Is(err, supervisor.ErrAlreadyStarted) && !failed {
				t.Error(err)
			}
		}
		if stopped {
			break
		}
	}
	if err := <-ending; err != nil {
		t.Error(err)
	}
	if err := p.TerminateChild(t.Context(), "web"); !errors.Is(err, supervisor.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}
