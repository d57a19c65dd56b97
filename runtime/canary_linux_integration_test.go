//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	canaries := func(limit time.Duration, canary coppice.Canary) func() coppice.Config {
		return func() coppice.Config {
			canary.Slots, canary.For = 1, limit
			return coppice.Config{Load: loadOrder, Children: []coppice.ChildSpec{coppice.Pool{
				Name: "web", Size: 2, Worker: judged, Liveness: coppice.Liveness{Every: 50 * time.Millisecond}, Shutdown: 2 * time.Second, Canary: canary,
			}}}
		}
	}
	trees["canary"] = canaries(time.Second, coppice.Canary{Memory: 16 << 20})
	trees["canary, no sample"] = canaries(100*time.Millisecond, coppice.Canary{})
	trees["canary, own verdict"] = canaries(time.Hour, coppice.Canary{Judge: judgeOwn})
	trees["canary, watched"] = canaries(100*time.Millisecond, coppice.Canary{Requests: 50, Slower: 1000, Watch: time.Hour})
}

// ownVerdict is what Canary.Judge is to find once, and ownJudged the generations that it was asked
// about.
var (
	ownVerdict = make(chan func() error, 1)
	ownJudged  = make(chan [2]int, 1)
)

func judgeOwn(_ context.Context, before, after int) error {
	select {
	case f := <-ownVerdict:
		ownJudged <- [2]int{before, after}
		return f()
	default:
		return nil
	}
}

// judged serves as its configuration orders: badly in many ways.
func judged(ctx context.Context, w *coppice.Worker) error {
	ln, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	order := string(w.Config())
	var n atomic.Int64
	var mu sync.Mutex
	var leaked [][]byte
	return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		n := n.Add(1)
		work := 300 * time.Microsecond
		switch {
		case order == "crashes" && n%200 == 0:
			os.Exit(3)
		case order == "errors" && n%50 == 0:
			http.Error(rw, "no", http.StatusServiceUnavailable)
		case order == "slow":
			work = work * 13 / 10
		case order == "leaks":
			mu.Lock()
			leaked = append(leaked, []byte(strings.Repeat("x", 8<<10)))
			mu.Unlock()
		case order == "turns bad":
			if _, err := os.Stat(os.Getenv(gateVar)); err == nil {
				http.Error(rw, "no", http.StatusServiceUnavailable)
			}
		}
		for began := time.Now(); time.Since(began) < work; { // it computes
		}
	})})
}

// load has clients ask until the test ends. harmed counts what they did not get.
func (p *runningTree) load() (harmed *atomic.Int64) {
	url := "http://" + p.Listeners()[0].Addr.String()
	ctx, cancel := context.WithCancel(p.t.Context())
	harmed = &atomic.Int64{}
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			for i := 0; ctx.Err() == nil; i++ {
				if i%20 == 19 {
					tr.CloseIdleConnections() // to another worker
				}
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
				resp, err := tr.RoundTrip(req)
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				if ctx.Err() == nil && (err != nil || resp.StatusCode != http.StatusOK) {
					harmed.Add(1)
				}
			}
		})
	}
	p.t.Cleanup(func() { cancel(); all.Wait() })
	return harmed
}

// generationOf returns the generation of the workers; 0 if they differ.
func (p *runningTree) generationOf() int {
	a, b := p.slots()["web/0"], p.slots()["web/1"]
	if a.State != coppice.StateRunning || b.State != coppice.StateRunning || a.Generation != b.Generation {
		return 0
	}
	return a.Generation
}

// verdict waits for the verdict on a new generation.
func (p *runningTree) verdict(events *coppice.EventReader, want string) {
	p.t.Helper()
	ev := next(p.t, events, coppice.CanaryJudged)
	if strings.HasPrefix(ev.Why, "held: ") && !strings.HasPrefix(want, "held: ") { // the machine is slow
		ev = next(p.t, events, coppice.CanaryJudged)
	}
	if !strings.HasPrefix(ev.Why, want) || ev.Path != "web" {
		p.t.Fatalf("%v, want %q", ev, want)
	}
}

// TestCanary: generations that are worse are found under load beside the old one, and the tree goes
// back; one that is not goes forward.
func TestCanary(t *testing.T) {
	for _, tt := range []struct {
		order string
		why   string
		long  bool
	}{
		{"crashes", "it crashes: new and old: ", false},
		{"errors", "its requests fail: new and old: 0 and 0 crashes, ", false},
		{"slow", "it is slower: new and old: ", true},
		{"leaks", "its memory grows: new and old: ", true},
	} {
		t.Run(tt.order, func(t *testing.T) {
			if tt.long && os.Getenv("COPPICE_SOAK") == "" || testing.Short() && tt.order != "errors" {
				t.Skip("it takes a while: COPPICE_SOAK=1")
			}
			setOrder("serve")
			p := startTree(t, "canary")
			events := p.Events(coppice.FromNow)
			harmed := p.load()
			setOrder(tt.order)
			began := time.Now()
			err := p.Reload(t.Context())
			if !errors.Is(err, coppice.ErrWorse) || !strings.Contains(err.Error(), tt.why) {
				t.Fatalf("error %v", err)
			}
			t.Logf("found after %v, %d requests harmed: %v", time.Since(began).Round(time.Millisecond), harmed.Load(), err)
			p.verdict(events, "begins: 1 of 2 slots")
			p.verdict(events, "back: "+tt.why)
			runtimetest.Eventually(t, "both are of the old generation", func() bool { return p.generationOf() == 1 })
		})
	}
	t.Run("the same", func(t *testing.T) {
		if os.Getenv("COPPICE_SOAK") == "" {
			t.Skip("it takes a while: COPPICE_SOAK=1")
		}
		setOrder("serve")
		p := startTree(t, "canary")
		harmed, runs, alarms := p.load(), 50, 0
		for range runs {
			if err := p.Reload(t.Context()); err != nil {
				t.Log(err)
				alarms++
			}
		}
		t.Logf("%d false alarms of %d; %d requests harmed", alarms, runs, harmed.Load())
		if alarms > runs/10 {
			t.Error("too many")
		}
	})
}

// TestCanaryHeld: without enough requests a human decides, for one that is held and for one that is
// not.
func TestCanaryHeld(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		setOrder("serve")
		p := startTree(t, "canary, no sample")
		if err := p.EndCanary(true); !errors.Is(err, coppice.ErrNoCanary) {
			t.Errorf("error %v", err)
		}
		events := p.Events(coppice.FromNow)
		for _, promote := range []bool{true, false} {
			done := make(chan error, 1)
			go func() { done <- p.Reload(t.Context()) }()
			p.verdict(events, "begins: 1 of 2 slots")
			p.verdict(events, "held: each needs 2000 requests: new and old: 0 and 0 crashes, 0 and 0 requests")
			runtimetest.Eventually(t, "the tree shows it", func() bool {
				return strings.Contains(p.Snapshot().String(), "is judged, 1 of 2 slots: each needs 2000 requests")
			})
			if a, b := p.slots()["web/0"].Generation, p.slots()["web/1"].Generation; a == b {
				t.Errorf("generations %d and %d", a, b)
			}
			if err := p.EndCanary(promote); err != nil {
				t.Fatal(err)
			}
			err := <-done
			if promote && err != nil || !promote && !errors.Is(err, coppice.ErrWorse) {
				t.Errorf("promote %v: error %v", promote, err)
			}
			p.verdict(events, map[bool]string{true: "forward: as an operator asked: ", false: "back: as an operator asked: "}[promote])
			runtimetest.Eventually(t, "both are of one generation", func() bool { return p.generationOf() == 2 })
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Reload(ctx) }()
		p.verdict(events, "begins: ")
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		runtimetest.Eventually(t, "it has gone back", func() bool { return p.generationOf() == 2 })
		if strings.Contains(p.Snapshot().String(), "is judged") {
			t.Errorf("it is still judged:\n%v", p.Snapshot())
		}
	})
}

// TestCanaryJudge: what the program itself finds worse goes back, in its own words; a panic of it
// is no verdict for the new generation.
func TestCanaryJudge(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "canary, own verdict")
	for i, f := range []func() error{func() error { return errors.New("too few orders") }, func() error { panic("no database") }} {
		ownVerdict <- f
		err := p.Reload(t.Context())
		want := []string{"the program finds it worse: too few orders: ", "the program finds it worse: panic: no database: "}[i]
		if !errors.Is(err, coppice.ErrWorse) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v", err)
		}
		if g := <-ownJudged; g[0] != 1 || g[1] <= 1 {
			t.Errorf("generations %v", g)
		}
	}
}

// TestCanaryWatch: a generation that becomes worse after the reload is over is found, and the tree
// goes back to the program and the configuration of the one before.
func TestCanaryWatch(t *testing.T) {
	gate := t.TempDir() + "/gate"
	t.Setenv(gateVar, gate)
	setOrder("serve")
	p := startTree(t, "canary, watched")
	events := p.Events(coppice.FromNow)
	p.load()
	setOrder("turns bad")
	if err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.verdict(events, "begins: 1 of 2 slots")
	p.verdict(events, "forward: ")
	p.verdict(events, "begins: for 1h0m0s after the reload")
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.verdict(events, "back: its requests fail: ")
	if ev := next(t, events, coppice.TreeReloaded); ev.Err != nil || ev.Generation != 3 {
		t.Fatal(ev)
	}
	runtimetest.Eventually(t, "both are of a third generation", func() bool { return p.generationOf() == 3 })
	resp, err := http.Get("http://" + p.Listeners()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d: it has the configuration that turned bad", resp.StatusCode)
	}
}
