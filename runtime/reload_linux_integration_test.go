//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// stopSignalFrame is what Config.Load of the trees below returns: how workers of the next
// generation behave.
var stopSignalFrame atomic.Pointer[string]

func setOrder(s string) { stopSignalFrame.Store(&s) }

func loadOrder(context.Context) ([]byte, error) {
	s := *stopSignalFrame.Load()
	if what, bad := strings.CutPrefix(s, "load: "); bad {
		return nil, errors.New(what)
	}
	return []byte(s), nil
}

// gateVar is the variable with the path of the gate that workers wait for when they are ordered to.
const gateVar = "COPPICE_TEST_GATE"

func init() {
	trees["one worker"] = func() coppice.Config {
		cfg := pool(1, obedient)
		cfg.Load = loadOrder
		return cfg
	}
}

// obedient serves, and behaves as its configuration orders.
func obedient(ctx context.Context, w *coppice.Worker) error {
	what, _, _ := strings.Cut(string(w.Config()), "@")
	_, at, _ := strings.Cut(string(w.Config()), "@")
	if at != "" && at != fmt.Sprint(w.Slot()) {
		what = ""
	}
	switch what {
	case "fail":
		fmt.Println("one line to go by")
		fmt.Fprintln(os.Stderr, "and another")
		return errors.New("no such database")
	case "exit 0":
		return nil
	case "wait":
		f, err := os.Open(os.Getenv(gateVar)) // a FIFO: until a process opens it for writing
		if err != nil {
			return err
		}
		_ = f.Close() // it was only read
	case "hang":
		<-ctx.Done()
		return nil
	}
	addr, park := "127.0.0.1:0", time.Duration(0)
	if what == "serve, park never" {
		park = coppice.ParkNever
	}
	if what == "other socket" {
		addr = "127.0.0.2:0"
	}
	ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Network: "tcp", Address: addr, Park: park})
	if err != nil {
		return err
	}
	if what == "crash" {
		if err := w.Ready(); err != nil {
			return err
		}
		return errors.New("boom")
	}
	return serveUntilAsked(ctx, w, ln)
}

// serveUntilAsked serves the worker's slot, and fails when it is asked for /crash.
func serveUntilAsked(ctx context.Context, w *coppice.Worker, ln net.Listener) error {
	crash, served := make(chan struct{}, 1), make(chan error, 1)
	go func() { // ends with the worker
		served <- w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/crash" {
				select {
				case crash <- struct{}{}:
				default: // it has been asked to already
				}
			}
			name(w).Handler.ServeHTTP(rw, r)
		})})
	}()
	select {
	case err := <-served:
		return err
	case <-crash:
		return errors.New("asked to crash")
	}
}

// crash makes a worker fail, in either isolation.
func (p *runningTree) crash() {
	p.t.Helper()
	c := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := c.Get("http://" + p.Listeners()[0].Addr.String() + "/crash"); err == nil { // else it was quicker than its answer
		_ = resp.Body.Close()
	}
}

// inBoth runs a test for both isolations.
func inBoth(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for _, isolation := range []coppice.Isolation{coppice.ProcessIsolation, coppice.GoroutineIsolation} {
		t.Run(isolation.String(), func(t *testing.T) {
			t.Setenv("COPPICE_ISOLATION", isolation.String())
			test(t)
		})
	}
}

// inProcess reports whether inBoth tests processes.
func inProcess() bool { return os.Getenv("COPPICE_ISOLATION") != coppice.GoroutineIsolation.String() }

func init() {
	reloads := func(change func(*coppice.Pool)) func() coppice.Config {
		return func() coppice.Config {
			p := coppice.Pool{
				Name: "web", Size: 2, Worker: obedient, StartTimeout: runtimetest.Patience,
				Intensity: supervisor.Intensity{Max: 100, Period: time.Second},
			}
			change(&p)
			return coppice.Config{Load: loadOrder, Children: []coppice.ChildSpec{p}}
		}
	}
	trees["reloads"] = reloads(func(p *coppice.Pool) {})
	// Long enough for a worker that does not hang, on a busy machine.
	trees["reloads, impatient"] = reloads(func(p *coppice.Pool) { p.StartTimeout = 3 * time.Second })
	trees["reloads, stop first"] = reloads(func(p *coppice.Pool) { p.Rollout.StopFirst = true })
	trees["reloads, backs off"] = reloads(func(p *coppice.Pool) {
		p.Backoff = supervisor.Backoff{Initial: time.Hour, NoJitter: true}
		p.Size = 1
	})
	trees["reloads, drains two"] = reloads(func(p *coppice.Pool) { p.Size, p.Rollout.MaxDraining, p.Shutdown = 1, 2, 6*time.Second })
	trees["reloads, gives up"] = reloads(func(p *coppice.Pool) { p.Intensity = supervisor.Intensity{Period: time.Second} })
	forGood := func(limit time.Duration) func() coppice.Config {
		return func() coppice.Config {
			cfg := reloads(func(p *coppice.Pool) { p.Intensity, p.StartTimeout = supervisor.Intensity{Period: time.Second}, limit })()
			cfg.Children = []coppice.ChildSpec{coppice.Supervisor{
				Name: "group", Restart: supervisor.Temporary, Intensity: supervisor.Intensity{Period: time.Second}, Children: cfg.Children,
			}}
			return cfg
		}
	}
	trees["reloads, gives up for good"] = forGood(runtimetest.Patience)
	trees["reloads, gives up for good soon"] = forGood(3 * time.Second)
}

// slots returns the pool's slots as the tree shows them, by name.
func (p *runningTree) slots() map[string]coppice.Tree {
	slots := map[string]coppice.Tree{}
	p.Snapshot().Walk(func(n coppice.Tree) {
		if n.Role == "worker" || n.Role == "listener" {
			slots[n.Name] = n
		}
	})
	return slots
}

// generations returns the generation of web/0, web/1 and so on, and of the listener
// process last.
func (p *runningTree) generations() []int {
	slots := p.slots()
	var gens []int
	for i := 0; ; i++ {
		n, ok := slots[fmt.Sprintf("web/%d", i)]
		if !ok {
			return append(gens, slots["listener"].Generation)
		}
		gens = append(gens, n.Generation)
	}
}

func (p *runningTree) wantGenerations(want ...int) {
	p.t.Helper()
	if got := p.generations(); !slices.Equal(got, want) {
		p.t.Errorf("generations %v, want %v:\n%v", got, want, p.Snapshot())
	}
}

func (p *runningTree) mustReload() {
	p.t.Helper()
	if err := p.Reload(p.t.Context()); err != nil {
		p.t.Fatal(err)
	}
}

// failReload reloads, which must fail.
func (p *runningTree) failReload() *coppice.ReloadError {
	p.t.Helper()
	err := p.Reload(p.t.Context())
	failed, ok := errors.AsType[*coppice.ReloadError](err)
	if !ok {
		p.t.Fatalf("reload: %v", err)
	}
	return failed
}

func (p *runningTree) get() string { return get(p.t, p.Listeners()[0].Addr.String()) }

// TestRetireWithoutWorker: the connections that a listener process has accepted when it is replaced
// are served, though the only worker of their pool is killed in that moment.
func TestRetireWithoutWorker(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "one worker")
	pid := p.processes()["web/0"]
	runtimetest.Freeze(t, pid)
	c, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "it is offered", func() bool {
		all, err := p.ListenerStats(t.Context())
		return err == nil && len(all) == 1 && all[0].Stats != nil && all[0].Stats.Counts.Offered == 1
	})
	if err := p.Restart(t.Context(), "listener"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200 OK") {
		t.Errorf("%q, %v", got, err)
	}
}

// TestReload: every worker and the listener process are replaced by the next
// generation, each under its name, with the socket open throughout.
func TestReload(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		setOrder("serve")
		p := startTree(t, "reloads")
		before, socket := p.slots(), p.Listeners()[0]
		events := p.Events(coppice.FromNow)
		p.mustReload()
		p.wantGenerations(2, 2, 2)
		for name, n := range p.slots() {
			if n.ID == before[name].ID || n.Incarnation != 2 {
				t.Errorf("%s: ID %d before, %d after, incarnation %d", name, before[name].ID, n.ID, n.Incarnation)
			}
		}
		if now := p.Listeners(); len(now) != 1 || now[0].Addr.String() != socket.Addr.String() {
			t.Errorf("listeners %v, want %v", now, socket)
		}
		p.get()
		replaced, drained := 0, 0
		for drained < 3 {
			ev, err := events.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if ev.Kind == coppice.WorkerReplaced {
				replaced++
			}
			if ev.Kind == coppice.WorkerDrained {
				drained++
			}
			if ev.Kind == coppice.ChildExited || ev.Kind == coppice.ChildStarted {
				t.Errorf("the supervisor noticed: %v", ev)
			}
		}
		if replaced != 3 {
			t.Errorf("%d replaced, want 3", replaced)
		}
	})
}

// TestReloadFails (P1, P2, P9, P61): the first worker that fails ends the reload, with its reason
// and its last lines. Then every worker is of the old generation, and a good reload after it works.
func TestReloadFails(t *testing.T) { inBoth(t, testReloadFails) }

func testReloadFails(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	for _, tt := range []struct{ order, worker, why string }{
		{"fail", "web/0", "no such database"},
		{"fail@1", "web/1", "no such database"},
		{"exit 0@1", "web/1", "the worker function returned nil"},
	} {
		t.Run(tt.order, func(t *testing.T) {
			setOrder(tt.order)
			failed := p.failReload()
			if failed.Name != tt.worker || !strings.Contains(failed.Error(), tt.why) || failed.ID == 0 {
				t.Errorf("%+v", failed)
			}
			if tt.why == "no such database" && inProcess() {
				slices.Sort(failed.Lines) // two streams
				if !slices.Equal(failed.Lines, []string{"and another", "one line to go by"}) {
					t.Errorf("last lines %q", failed.Lines)
				}
			}
			p.wantGenerations(1, 1, 1)
			p.get()
		})
	}
	setOrder("load: the file is broken")
	if err := p.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "the file is broken") {
		t.Errorf("error %v", err)
	}
	setOrder("serve")
	p.mustReload()
	p.wantGenerations(5, 5, 5)
	// The replacement of a worker is of its generation (P14: whatever Load returns now).
	setOrder("fail")
	p.atRest() // a connection that a draining worker has taken would be cut by the worker's crash
	before := p.slots()
	p.crash()
	runtimetest.Eventually(t, "one is replaced", func() bool {
		a, b := p.slots()["web/0"], p.slots()["web/1"]
		return a.ID+b.ID > before["web/0"].ID+before["web/1"].ID && a.State == "running" && b.State == "running"
	})
	p.wantGenerations(5, 5, 5)
}

// TestReloadHangs (P3): a worker that is not ready in time is killed and fails the reload; so does
// a worker whose wait the caller ends.
func TestReloadHangs(t *testing.T) { inBoth(t, testReloadHangs) }

func testReloadHangs(t *testing.T) {
	t.Run("start timeout", func(t *testing.T) {
		setOrder("serve")
		p := startTree(t, "reloads, impatient")
		setOrder("hang@1")
		if failed := p.failReload(); !errors.Is(failed, coppice.ErrNotReady) || failed.Name != "web/1" {
			t.Errorf("%+v", failed)
		}
		p.wantGenerations(1, 1, 1)
	})
	t.Run("context", func(t *testing.T) {
		setOrder("serve")
		p := startTree(t, "reloads")
		setOrder("hang@1")
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			runtimetest.Eventually(t, "web/1 is being started", func() (found bool) {
				p.Snapshot().Walk(func(n coppice.Tree) { found = found || n.Name == "web/1" && n.Role == coppice.RoleCandidate })
				return found
			})
			cancel()
		}()
		const awaited = "coppice: reload to generation 2 failed: context canceled, while web/1 was not ready: "
		if err := p.Reload(ctx); !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), awaited) {
			t.Errorf("error %v", err)
		}
		p.wantGenerations(1, 1, 1)
	})
}

// TestReloadsInTurn (P4): concurrent reloads are all done, one after the other.
func TestReloadsInTurn(t *testing.T) { inBoth(t, testReloadsInTurn) }

func testReloadsInTurn(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	errs := make(chan error)
	const n = 4
	for range n {
		go func() { errs <- p.Reload(t.Context()) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	p.wantGenerations(1+n, 1+n, 1+n)
}

// TestReloadInCrashLoop: the slot is down and its supervisor waits an hour before it
// tries again. The generation that cures it serves at once.
func TestReloadInCrashLoop(t *testing.T) { inBoth(t, testReloadInCrashLoop) }

func testReloadInCrashLoop(t *testing.T) {
	setOrder("crash")
	p := startTree(t, "reloads, backs off")
	runtimetest.Eventually(t, "the slot is down", func() bool {
		down := false
		p.Snapshot().Walk(func(n coppice.Tree) { down = down || n.State == "restarting" })
		return down
	})
	setOrder("serve")
	p.mustReload()
	if got := p.get(); got != "0" {
		t.Errorf("slot %q answers", got)
	}
}

// TestCrashInReload (P13): a worker of the new generation that has taken its place and
// then ends fails the reload: what it would have replaced next is kept.
func TestCrashInReload(t *testing.T) { inBoth(t, testCrashInReload) }

func testCrashInReload(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	setOrder("crash@0")
	// Whether it crashes before the last slot has its turn depends on the machine. In any case
	// every slot has a worker in the end.
	err := p.Reload(t.Context())
	if failed, ok := errors.AsType[*coppice.ReloadError](err); ok {
		if failed.Name != "web/0" || !strings.Contains(failed.Error(), "boom") {
			t.Errorf("%+v", failed)
		}
		runtimetest.Eventually(t, "everybody is back", func() bool {
			return slices.Equal(p.generations(), []int{1, 1, 1})
		})
		p.get()
	} else if err != nil {
		t.Error(err)
	}
}

// givenUp is a reload whose pool has used its budget up, by one of its old workers, while the
// successor of web/1 waits for the gate.
type givenUp struct {
	*runningTree
	gate string
	done chan error // what Reload returns
}

// giveUpInReload starts a tree whose pool is at path, and reloads it under ctx. It calls before
// when the successor is being started.
func giveUpInReload(ctx context.Context, t *testing.T, tree, path string, before func(gate string) error) *givenUp {
	t.Helper()
	g := &givenUp{gate: filepath.Join(t.TempDir(), "gate"), done: make(chan error, 1)}
	if err := syscall.Mkfifo(g.gate, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(gateVar, g.gate)
	setOrder("serve")
	g.runningTree = startTree(t, tree)
	sub := g.Events(coppice.FromNow)
	setOrder("wait@1")
	go func() { g.done <- g.Reload(ctx) }()
	name := path + "/1"
	runtimetest.Eventually(t, name+" is on its way", func() bool { return g.candidate(name) })
	if before != nil {
		if err := before(g.gate); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(g.slots()[name].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next(t, sub, coppice.SupervisorGaveUp)
	return g
}

// TestGivesUpInReload: the pool's budget is used up by its old workers while their successors
// start. That does not fail the reload, and the restarted pool is of the new generation.
func TestGivesUpInReload(t *testing.T) {
	g := giveUpInReload(t.Context(), t, "reloads, gives up", "web", nil)
	open, err := os.OpenFile(g.gate, os.O_RDWR, 0) // with O_RDWR the open does not wait
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if err := <-g.done; err != nil {
		t.Error(err)
	}
	runtimetest.Eventually(t, "everybody is of the new generation", func() bool {
		return slices.Equal(g.generations(), []int{2, 2, 2})
	})
	g.get()
}

// TestGivesUpInBadReload: the same, and the new generation does not work. No worker had shown that
// it works, yet it could become the generation to restart from if the pool came back late; the
// restarted pool then failed for ever.
func TestGivesUpInBadReload(t *testing.T) {
	g := giveUpInReload(t.Context(), t, "reloads, gives up", "web", os.Remove) // a worker that looks for the gate from then on fails
	err := <-g.done
	if failed, ok := errors.AsType[*coppice.ReloadError](err); !ok || failed.Name != "web/1" || !strings.Contains(failed.Error(), g.gate) {
		t.Fatalf("error %v", err)
	}
	runtimetest.Eventually(t, "everybody is of the old generation", func() bool {
		return slices.Equal(g.generations(), []int{1, 1, 1})
	})
	g.get()
}

// TestGivesUpForGoodInReload: the same, and the pool is not restarted: no worker can show that the
// new generation works, and the reload's error says so.
func TestGivesUpForGoodInReload(t *testing.T) {
	for _, tt := range []struct {
		name, tree string
		err        error // nil: that it has waited for long enough
	}{
		{"the caller waits no longer", "reloads, gives up for good", context.Canceled},
		{"it is not started again", "reloads, gives up for good soon", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			g := giveUpInReload(ctx, t, tt.tree, "group/web", nil)
			if tt.err != nil {
				runtimetest.Eventually(t, "the pool is gone", func() bool { return len(g.slots()) == 1 })
				cancel()
			}
			err := <-g.done
			failed, ok := errors.AsType[*coppice.ReloadError](err)
			if !ok || failed.Name != "" || tt.err != nil && !errors.Is(err, tt.err) || tt.err == nil && !strings.Contains(err.Error(), "pool group/web gave up") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// candidate reports whether a successor of the worker of that name is being started.
func (p *runningTree) candidate(name string) (way bool) {
	p.Snapshot().Walk(func(n coppice.Tree) { way = way || n.Role == "candidate" && n.Name == name })
	return way
}

// TestStopInReload (P7): the tree ends while it reloads: no process is left, and the caller of
// Reload gets an error.
func TestStopInReload(t *testing.T) { inBoth(t, testStopInReload) }

func testStopInReload(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	setOrder("hang@1")
	done := make(chan error, 1)
	go func() { done <- p.Reload(t.Context()) }()
	runtimetest.Eventually(t, "web/1 is on its way", func() bool { return p.candidate("web/1") })
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, coppice.ErrStopping) {
		t.Errorf("reload: %v", err)
	}
	if err := p.Reload(t.Context()); !errors.Is(err, coppice.ErrStopping) {
		t.Errorf("reload after the end: %v", err)
	}
}

// TestReloadSockets: a socket that the new generation does not ask for is closed when
// the reload is complete; one that only a failed generation asked for, when it has failed.
func TestReloadSockets(t *testing.T) { inBoth(t, testReloadSockets) }

func testReloadSockets(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	old := p.Listeners()[0].Addr.String()
	setOrder("other socket")
	p.mustReload()
	now := p.Listeners()
	if len(now) != 1 || now[0].Addr.String() == old {
		t.Errorf("listeners %v; before %v", now, old)
	}
	p.get()
	setOrder("fail@1") // web/0 asks for the first one again
	_ = p.failReload()
	if after := p.Listeners(); len(after) != 1 || after[0].Addr.String() != now[0].Addr.String() {
		t.Errorf("listeners %v after a failed reload, want %v", after, now)
	}
	p.get()
}

// TestReloadStopFirst: no two workers of a slot run at the same time, and the socket stays open
// though no worker has it for a while.
func TestReloadStopFirst(t *testing.T) { inBoth(t, testReloadStopFirst) }

func testReloadStopFirst(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads, stop first")
	socket := p.Listeners()[0].Addr.String()
	setOrder("fail@1")
	_ = p.failReload()
	p.wantGenerations(1, 1, 1)
	setOrder("serve")
	p.mustReload()
	p.wantGenerations(3, 3, 3)
	if now := p.Listeners()[0].Addr.String(); now != socket {
		t.Errorf("listens on %v, before on %v", now, socket)
	}
	p.get()
}

// TestReloadsLeaveNothing (P6): after many reloads there are as many descriptors,
// goroutines and processes as before, and the master is no bigger. COPPICE_SOAK=1 reloads
// 1,000 times.
func TestReloadsLeaveNothing(t *testing.T) { inBoth(t, testReloadsLeaveNothing) }

func testReloadsLeaveNothing(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "reloads")
	reloads := 30
	if testing.Short() {
		reloads = 5
	}
	if os.Getenv("COPPICE_SOAK") != "" {
		reloads = 1000
	}
	for range 5 { // what is made once is made
		p.mustReload()
	}
	before := p.atRest()
	for range reloads {
		p.mustReload()
	}
	now := p.atRest()
	t.Logf("before %v; after %d reloads %v", before, reloads, now)
	now.mustBe(t, before)
}

// rest is what a tree and its master have when nothing is under way.
type rest struct {
	fds, goroutines, kids int
	heap, resident        int64 // bytes
}

func (r rest) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines, %d children, %d KiB of heap, %d KiB resident",
		r.fds, r.goroutines, r.kids, r.heap>>10, r.resident>>10)
}

// slack is how much bigger a process may be although nothing is left behind: what its allocator
// keeps differs from time to time. A channel is some 200 KiB.
const slack = 6 << 20

func (r rest) mustBe(t *testing.T, before rest) {
	t.Helper()
	if r.fds > before.fds || r.goroutines > before.goroutines || r.kids != before.kids || r.heap > before.heap+slack {
		t.Errorf("%v; before it was %v", r, before)
	}
	if r.resident > before.resident+2*slack && !raced() { // the race detector keeps its own records
		t.Errorf("%v; before it was %v", r, before)
	}
}

// raced reports whether this is built with the race detector.
func raced() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// atRest waits until no worker drains and nothing changes any more, and counts.
func (p *runningTree) atRest() (now rest) {
	p.t.Helper()
	runtimetest.Eventually(p.t, "nobody drains", func() bool {
		alone := true
		p.Snapshot().Walk(func(n coppice.Tree) { alone = alone && n.Role != "draining" && n.Role != "candidate" })
		return alone
	})
	same := 0
	runtimetest.Eventually(p.t, "nothing changes any more", func() bool {
		last := now
		now = rest{
			fds: len(runtimetest.Descriptors(p.t, os.Getpid())), goroutines: goruntime.NumGoroutine(),
			kids: len(runtimetest.Children(p.t, os.Getpid())),
		}
		if same++; now != last {
			same = 0
		}
		return same == 20
	})
	debug.FreeOSMemory()
	debug.FreeOSMemory() // what a sync.Pool has outlives one collection
	var mem goruntime.MemStats
	goruntime.ReadMemStats(&mem)
	now.heap, now.resident = int64(mem.HeapAlloc), runtimetest.Resident(p.t, os.Getpid())
	return now
}
