//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

var (
	chaosFor  = flag.Duration("chaos", 0, "how long TestChaos lasts; 0 = 10s, and 3s with -short; for long runs add -v: testing keeps the log of others until their end, and it counts as growth")
	chaosSeed = flag.Uint64("chaosseed", 1, "of TestChaos")
)

func init() {
	trees["chaos"] = func() coppice.Config {
		never := supervisor.Intensity{Max: 1 << 20, Period: time.Second} // is the budget used up
		return coppice.Config{Intensity: never, Load: loadOrder, Children: []coppice.ChildSpec{
			coppice.Pool{
				Name: "web", Size: 3, Spares: 1, Intensity: never, Worker: chaotic, StartTimeout: runtimetest.Patience,
				Liveness: coppice.Liveness{Every: 50 * time.Millisecond, Timeout: time.Second, Path: "/healthz"},
				Recycle:  coppice.Recycle{SoftMemory: 64 << 20, HardMemory: 256 << 20, Every: 50 * time.Millisecond},
				Shutdown: 2 * time.Second,
			},
			coppice.Pool{Name: "inner", Size: 2, Intensity: never, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "inner", Network: "tcp", Address: "127.0.0.2:0", Policy: coppice.LeastLoaded})
				if err != nil {
					return err
				}
				return serveUntilAsked(ctx, w, ln)
			}, Isolation: coppice.GoroutineIsolation, Shutdown: 2 * time.Second},
			coppice.Supervisor{Name: "group", Strategy: supervisor.RestForOne, Intensity: never, Children: []coppice.ChildSpec{
				coppice.Process{Name: "sleep", Command: []string{"sleep", "3600"}},
				coppice.Func{Name: "tick", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
			}},
		}}
	}
}

// chaotic serves its slot, and can be made to hang and to leak.
func chaotic(ctx context.Context, w *coppice.Worker) error {
	if string(w.Config()) == "fail" {
		return errors.New("no such database")
	}
	ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "web", Network: "tcp", Address: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	var (
		lock sync.Mutex
		kept [][]byte
		mux  http.ServeMux
	)
	mux.Handle("/", name(w).Handler)
	mux.HandleFunc("/healthz", func(http.ResponseWriter, *http.Request) { lock.Lock(); defer lock.Unlock() })
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { lock.Lock(); blockInHandler() })
	mux.HandleFunc("/leak", func(http.ResponseWriter, *http.Request) {
		lock.Lock()
		defer lock.Unlock()
		kept = append(kept, []byte(strings.Repeat("x", 24<<20)))
	})
	return w.Serve(ctx, ln, &http.Server{Handler: &mux})
}

// chaos is one run of TestChaos.
type chaos struct {
	*runningTree
	rnd     *rand.Rand
	done    map[string]int // what was done, and how it ended
	mu      sync.Mutex     // guards done
	rolling sync.WaitGroup // reloads, changes of size and requests under way
	busy    map[string]chan struct{}
	frozen  []int
}

// TestChaos: processes of a mixed tree are killed, stopped, made to hang and to leak, and the tree
// is reloaded, well and badly, and scaled, at random and at the same time, while clients ask. No
// client is refused; connections are cut only in processes that were ended; the counts of the
// listeners balance; and in the end the tree and its master have what they had.
func TestChaos(t *testing.T) {
	lasts := *chaosFor
	switch {
	case lasts != 0:
	case testing.Short():
		lasts = 3 * time.Second
	default:
		lasts = 10 * time.Second
	}
	setOrder("serve")
	c := &chaos{
		runningTree: startTree(t, "chaos"), rnd: rand.New(rand.NewPCG(*chaosSeed, 1)), done: map[string]int{},
		busy: map[string]chan struct{}{"reload": make(chan struct{}, 1), "scale": make(chan struct{}, 1)},
	}
	c.mustReload() // what is made once is made
	c.whole()
	before := c.atRest()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	const inFlight = 4
	loads := map[string]runtimetest.Load{
		"web, fresh": {URL: c.url("web", "/"), InFlight: inFlight},
		"web, kept":  {URL: c.url("web", "/"), InFlight: inFlight, KeepAlive: true},
		"inner":      {URL: c.url("inner", "/"), InFlight: inFlight},
	}
	counts := map[string]chan runtimetest.Counts{}
	for name, l := range loads {
		l.Timeout = runtimetest.Patience
		ch := make(chan runtimetest.Counts, 1)
		counts[name] = ch
		go func() { ch <- l.Run(ctx) }() // ends with ctx
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(lasts); ; {
		select {
		case <-end:
		case <-tick.C:
			c.blow()
			continue
		}
		break
	}
	c.thaw()
	c.rolling.Wait()
	cancel()
	for name, ch := range counts {
		got := <-ch
		t.Logf("%s: %v", name, got)
		if got.OK == 0 || got.Refused != 0 || got.Hung != 0 || got.Other != 0 {
			t.Errorf("%s: %v", name, got)
		}
		if ends := int64(c.done["ends"]); got.Cut > ends*inFlight {
			t.Errorf("%s: %d cut by %d ends of processes", name, got.Cut, ends)
		}
	}
	setOrder("serve")
	if err := c.Scale(t.Context(), "web", 3); err != nil {
		t.Error(err)
	}
	c.whole()
	c.balance()
	now := c.atRest()
	t.Logf("seed %d, %v: %v", *chaosSeed, lasts, c.done)
	t.Logf("before %v; after %v", before, now)
	now.mustBe(t, before)
}

func (c *chaos) url(listener, path string) string {
	c.t.Helper()
	for _, l := range c.Listeners() {
		if l.Name == listener {
			return "http://" + l.Addr.String() + path
		}
	}
	c.t.Fatalf("no listener %s: %v", listener, c.Listeners())
	return ""
}

func (c *chaos) did(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[what]++
}

// blow does one thing to the tree.
func (c *chaos) blow() {
	c.thaw()
	what := c.rnd.IntN(100)
	victim := c.victim()
	switch {
	case what < 35 && victim != 0:
		c.strike(victim, syscall.SIGKILL, "killed")
	case what < 50 && victim != 0:
		if c.strike(victim, syscall.SIGSTOP, "stopped") {
			c.frozen = append(c.frozen, victim)
		}
	case what < 55:
		c.ask("web", "/hang", "hung")
	case what < 70:
		c.ask("web", "/leak", "leaked")
	case what < 80:
		c.ask("inner", "/crash", "crashed")
	case what < 90:
		order := "serve"
		if c.rnd.IntN(3) == 0 {
			order = "fail"
		}
		c.operate("reload", func() error { setOrder(order); return c.Reload(c.t.Context()) })
	default:
		size := 2 + c.rnd.IntN(4)
		c.operate("scale", func() error { return c.Scale(c.t.Context(), "web", size) })
	}
}

// victim is a process of the tree, or 0.
func (c *chaos) victim() int {
	var pids []int
	c.Snapshot().Walk(func(n coppice.Tree) {
		if n.PID != 0 && n.PID != os.Getpid() {
			pids = append(pids, n.PID)
		}
	})
	if len(pids) == 0 {
		return 0
	}
	return pids[c.rnd.IntN(len(pids))]
}

// strike sends a signal to a process that may have ended already. The process is still a child, so
// its number is not reused before the master has reaped it.
func (c *chaos) strike(pid int, sig syscall.Signal, what string) bool {
	if !slices.Contains(runtimetest.Children(c.t, os.Getpid()), pid) || syscall.Kill(pid, sig) != nil {
		return false
	}
	c.did(what)
	c.did("ends")
	return true
}

// thaw continues every process that was stopped.
func (c *chaos) thaw() {
	for _, pid := range c.frozen {
		if slices.Contains(runtimetest.Children(c.t, os.Getpid()), pid) {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may just have ended
		}
	}
	c.frozen = nil
}

// ask sends a request to a worker, and does not wait for the answer.
func (c *chaos) ask(listener, path, what string) {
	c.did(what)
	c.did("ends")
	url := c.url(listener, path)
	c.rolling.Go(func() {
		client := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
		if resp, err := client.Get(url); err == nil {
			_ = resp.Body.Close()
		}
	})
}

// operate begins an operation on a pool as a whole, unless it is under way. The operation may fail
// only when a worker that it starts is struck.
func (c *chaos) operate(what string, do func() error) {
	turn := c.busy[what]
	select {
	case turn <- struct{}{}:
	default:
		return
	}
	c.rolling.Go(func() {
		defer func() { <-turn }()
		began := time.Now()
		err := do()
		failed, reload := errors.AsType[*coppice.ReloadError](err)
		switch {
		case err == nil:
			c.did(what)
			if what == "reload" { // workers that drain may be cut at their deadlines
				for range 8 {
					c.did("ends")
				}
			}
		case reload && failed.Name != "", what == "scale" && strings.Contains(err.Error(), " did not start: "):
			c.did(what + " failed")
		default:
			c.t.Errorf("%s after %v: %v", what, time.Since(began), err)
		}
	})
}

// whole waits until every process is there and runs.
func (c *chaos) whole() {
	c.t.Helper()
	want := map[coppice.Role]int{coppice.RoleWorker: 5, coppice.RoleSpare: 1, coppice.RoleListener: 1, coppice.RoleProcess: 1}
	runtimetest.Eventually(c.t, "everybody runs", func() bool {
		got := map[coppice.Role]int{}
		c.Snapshot().Walk(func(n coppice.Tree) {
			switch n.Role {
			case coppice.RoleWorker, coppice.RoleSpare, coppice.RoleListener, coppice.RoleProcess, coppice.RoleDraining, coppice.RoleCandidate:
				if n.State == coppice.StateRunning {
					got[n.Role]++
				} else {
					got["not running"]++
				}
			default: // runs no program
			}
		})
		return maps.Equal(got, want)
	})
}

// balance checks what the listener process that is there now has counted.
func (c *chaos) balance() {
	c.t.Helper()
	var told string
	runtimetest.Eventually(c.t, "the counts balance, and nobody has a connection", func() bool {
		infos, err := c.ListenerStats(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		told = ""
		ok := true
		for _, l := range infos {
			claimed, open := l.Stats.Gone.Claimed, 0
			ok = ok && l.Stats.Counts.Balanced() && l.Stats.Gone.Balanced()
			for _, w := range l.Stats.Workers {
				claimed += w.Counts.Claimed
				open += w.Counts.Open()
				ok = ok && w.Counts.Balanced()
			}
			ok = ok && claimed == l.Stats.Counts.Claimed && open == 0
			told += fmt.Sprintf("%s: %+v; gone %+v; open %d\n", l.Name, l.Stats.Counts, l.Stats.Gone, open)
		}
		return ok
	})
	c.t.Log(told)
}
