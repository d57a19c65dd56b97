//go:build linux

package coppice_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// curedVar is a file that, once it is there, keeps the poison from killing.
const curedVar = "COPPICE_TEST_CURED"

func init() {
	trees["poisoned"] = func() coppice.Config {
		cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			mux := http.NewServeMux()
			mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok") })
			mux.HandleFunc("/held/", func(rw http.ResponseWriter, r *http.Request) {
				rw.Header().Set("Pid", strconv.Itoa(os.Getpid()))
				rw.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(rw).Flush() // the client knows that it is in flight
				<-r.Context().Done()
			})
			mux.HandleFunc("/poison", func(http.ResponseWriter, *http.Request) {
				if _, err := os.Stat(os.Getenv(curedVar)); err != nil {
					os.Exit(3)
				}
			})
			return w.Serve(ctx, ln, &http.Server{Handler: mux})
		})
		web := cfg.Children[0].(coppice.Pool)
		web.Intensity = supervisor.Intensity{Max: 100, Period: time.Hour}
		web.Poison = coppice.Poison{Deaths: 2, Probe: time.Millisecond}
		cfg.Children[0] = web
		cfg.Hooks.Crash = crashed.add
		return cfg
	}
	for name, deaths := range map[string]int{"poisoned by four": 2, "poisoned by four, let through": 0} {
		trees[name] = func() coppice.Config {
			cfg := trees["poisoned"]()
			web := cfg.Children[0].(coppice.Pool)
			web.Size, web.Poison = 4, coppice.Poison{Deaths: deaths}
			cfg.Children[0] = web
			return cfg
		}
	}
}

// poisonableLines answers "ok" and its pid to the first line of each connection; "held" holds the
// connection, and "poison" ends the worker, until the cure is there.
func poisonableLines(ctx context.Context, w *coppice.Worker) error {
	ln, err := w.Listener(ctx, "lines")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	if err := w.Ready(); err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer c.Close() // before a panic ends the process
			line, err := bufio.NewReader(c).ReadString('\n')
			if _, uncured := os.Stat(os.Getenv(curedVar)); err == nil && strings.HasPrefix(line, "poison") && uncured != nil {
				panic("poisoned")
			}
			_, _ = fmt.Fprintln(c, "ok", os.Getpid())
			if strings.HasPrefix(line, "held") {
				_, _ = c.Read(make([]byte, 1))
			}
		}()
	}
}

func init() {
	trees["poisoned lines"] = func() coppice.Config {
		return coppice.Config{Hooks: coppice.Hooks{Crash: crashed.add}, Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "lines", Network: "tcp", Address: "127.0.0.1:0", Hooks: coppice.ListenerHooks{
				PoisonKey: func(first []byte) (string, coppice.PeekVerdict) {
					line, _, whole := strings.Cut(string(first), "\n")
					if !whole {
						return "", coppice.PeekMore
					}
					return line, coppice.PeekKeyed
				},
				PoisonAnswer: "refused\n",
			}},
			coppice.Pool{
				Name: "web", Size: 2, Worker: poisonableLines, Intensity: supervisor.Intensity{Max: 100, Period: time.Hour},
				Poison: coppice.Poison{Deaths: 2, Probe: time.Millisecond},
			},
		}}
	}
}

// say sends a line in two parts and returns what comes back; "" means that the connection was cut.
func (p *runningTree) say(line string) (c net.Conn, answer string) {
	p.t.Helper()
	c, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	_, _ = io.WriteString(c, line[:2])
	_, _ = io.WriteString(c, line[2:]+"\n")
	answer, err = bufio.NewReader(c).ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("%q: no answer", line)
	}
	return c, answer
}

// TestPoisonFirstBytes: connections whose first bytes kill workers are refused by the listener
// process after two deaths, while others are served. A probe goes to a worker of its own: it kills
// that and cuts nobody else. When the bytes kill no longer, a probe releases their key.
func TestPoisonFirstBytes(t *testing.T) {
	crashed.ch = make(chan coppice.CrashReport, 100)
	cured := filepath.Join(t.TempDir(), "cured")
	t.Setenv(curedVar, cured)
	p := startTree(t, "poisoned lines")
	events := p.Events(coppice.FromNow)
	for deaths := 0; ; deaths++ {
		if _, answer := p.say("poison"); answer == "refused\n" {
			break
		} else if answer != "" || deaths > 20 {
			t.Fatalf("after %d deaths: %q", deaths, answer)
		}
		r := crashed.await(t)
		if !slices.ContainsFunc(r.Serving, func(s coppice.ServedRequest) bool { return s.Key == "lines: poison" }) {
			t.Errorf("it was serving %v", r.Serving)
		}
		if _, answer := p.say("innocent"); !strings.HasPrefix(answer, "ok") {
			t.Errorf("beside it: %q", answer)
		}
	}
	if ev := next(t, events, coppice.KeyQuarantined); !strings.HasPrefix(ev.Why, `"lines: poison" is refused: 2 workers died with it`) || ev.Path != "web" {
		t.Error(ev)
	}
	if keys := p.quarantined(); len(keys) != 1 || keys[0].Key != "lines: poison" || keys[0].Released || keys[0].Deaths != 2 {
		t.Errorf("the quarantine has %+v", keys)
	}

	// Others are held in both workers, and outlive a probe that dies.
	var held []net.Conn
	pids := map[string]bool{}
	runtimetest.Eventually(t, "both workers serve", func() bool {
		c, answer := p.say("held")
		held = append(held, c)
		pids[answer] = true
		return len(pids) == 2
	})
	before := len(crashed.ch)
	runtimetest.Eventually(t, "a probe dies in a worker of its own", func() bool {
		p.say("poison")
		return len(crashed.ch) > before
	})
	if r := crashed.await(t); r.Name != "web/trial" || len(r.Serving) != 1 || r.Serving[0].Key != "lines: poison" || pids[fmt.Sprintf("ok %d\n", r.PID)] {
		t.Errorf("%s, process %d of %v, was serving %v", r.Name, r.PID, pids, r.Serving)
	}
	for _, c := range held {
		_, _ = io.WriteString(c, "x")
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // its worker has closed it
			t.Errorf("held: %v", err)
		}
	}

	// The listener process is killed, and its successor refuses as well.
	if err := syscall.Kill(p.pid("listener"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the new listener process refuses it", func() bool { _, answer := p.say("poison"); return answer == "refused\n" })
	if _, answer := p.say("innocent"); !strings.HasPrefix(answer, "ok") {
		t.Errorf("after a kill of the listener process: %q", answer)
	}
	if err := os.WriteFile(cured, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "a probe is answered", func() bool { _, answer := p.say("poison"); return strings.HasPrefix(answer, "ok") })
	runtimetest.Eventually(t, "it is released, and served", func() bool {
		_, answer := p.say("poison")
		return p.quarantined()[0].Released && pids[answer]
	})
	runtimetest.Eventually(t, "the worker of the probe ends", func() bool { return !strings.Contains(p.Snapshot().String(), "trial") })
	l, err := p.ListenerStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := l[0].Stats.Counts; c.Quarantined == 0 || !c.Balanced() {
		t.Errorf("%+v", c)
	}
	if err := p.System().Operate(t.Context(), "web/quarantine", "forget", "lines: poison"); err != nil || len(p.quarantined()) != 0 {
		t.Errorf("forgotten: %v, %v", p.quarantined(), err)
	}
}

// visit makes a request on a connection of its own; status 0 means that it was cut.
func (p *runningTree) visit(path string) (status int, text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), runtimetest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Listeners()[0].Addr.String()+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body) // what there is
	return resp.StatusCode, string(b)
}

// hold begins a request that is in flight until its worker ends, whose pid it returns.
func (p *runningTree) hold(path string) (pid int) {
	p.t.Helper()
	resp, err := http.Get("http://" + p.Listeners()[0].Addr.String() + "/held" + path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		p.t.Errorf("%s: %s", path, resp.Status)
	}
	pid, _ = strconv.Atoi(resp.Header.Get("Pid")) // 0 is seen
	return pid
}

type quarantinedKey struct {
	Key             string
	Released        bool
	Deaths, Refused int
}

// quarantined returns the keys of the pool's quarantine.
func (p *runningTree) quarantined() []quarantinedKey {
	p.t.Helper()
	state, err := p.System().Inspect(p.t.Context(), "web/quarantine")
	if err != nil {
		p.t.Fatal(err)
	}
	var all struct{ Quarantine json.RawMessage }
	if err := json.Unmarshal(state.Value, &all); err != nil {
		p.t.Fatal(err)
	}
	var keys []quarantinedKey
	if err := json.Unmarshal(all.Quarantine, &keys); err != nil {
		p.t.Fatal(err)
	}
	return keys
}

// TestPoisonRequest: a request that kills its workers is refused after two deaths by all workers,
// and nothing that was in flight beside it is. When it kills no longer, a probe releases it.
func TestPoisonRequest(t *testing.T) {
	crashed.ch = make(chan coppice.CrashReport, 100)
	cured := filepath.Join(t.TempDir(), "cured")
	t.Setenv(curedVar, cured)
	p := startTree(t, "poisoned")
	deaths := 0
	poison := func() (refused bool) {
		for i := range 4 { // beside it, in one worker or in both
			p.hold(fmt.Sprintf("/%d/%d", deaths, i))
		}
		switch status, text := p.visit("/poison"); status {
		case 0: // it was let through
			deaths++
			r := crashed.await(t)
			if !slices.ContainsFunc(r.Serving, func(s coppice.ServedRequest) bool { return s.Key == "GET /poison" }) {
				t.Errorf("it was serving %v", r.Serving)
			}
		case http.StatusServiceUnavailable:
			if !strings.Contains(text, "have killed the processes") {
				t.Errorf("refused: %q", text)
			}
			return true
		default:
			t.Fatalf("status %d: %s", status, text)
		}
		return false
	}
	for !poison() { // the worker that has it may not have heard yet
		if deaths > 20 {
			t.Fatal("it is not refused")
		}
		if status, text := p.visit("/"); status != http.StatusOK {
			t.Errorf("/: %d %s", status, text)
		}
	}
	keys := p.quarantined()
	if len(keys) != 1 || keys[0].Key != "GET /poison" || keys[0].Released || keys[0].Deaths != deaths || deaths < 2 {
		t.Errorf("after %d deaths the quarantine has %+v", deaths, keys)
	}
	p.hold("/0/0") // it was in flight in a death, and is not refused
	if err := os.WriteFile(cured, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "a probe is answered", func() bool { status, _ := p.visit("/poison"); return status == http.StatusOK })
	runtimetest.Eventually(t, "it is released", func() bool { return p.quarantined()[0].Released })
	runtimetest.Eventually(t, "it is served by all workers", func() bool {
		for range 4 {
			if status, _ := p.visit("/poison"); status != http.StatusOK {
				return false
			}
		}
		return true
	})
	if err := p.System().Operate(t.Context(), "web/quarantine", "forget", "GET /poison"); err != nil || len(p.quarantined()) != 0 {
		t.Errorf("forgotten: %v, %v", p.quarantined(), err)
	}
	if err := p.System().Operate(t.Context(), "web/quarantine", "release", "GET /poison"); err == nil {
		t.Error("what is not quarantined is released")
	}
}

// TestServingSurvivesKill: what a worker was serving is known after a kill -9 from outside, which
// makes nothing suspect.
func TestServingSurvivesKill(t *testing.T) {
	crashed.ch = make(chan coppice.CrashReport, 100)
	p := startTree(t, "poisoned")
	for i := range 3 { // twice a worker of the same key at least
		pid := p.hold("/a")
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(i, err)
		}
		r := crashed.await(t)
		if len(r.Serving) != 1 || r.Serving[0].Key != "GET /held/a" || r.Serving[0].Age < 0 || r.PID != pid {
			t.Errorf("process %d, not %d, was serving %+v", r.PID, pid, r.Serving)
		}
	}
	if status, text := p.visit("/"); status != http.StatusOK || len(p.quarantined()) != 0 {
		t.Errorf("%d %s, and quarantined is %v", status, text, p.quarantined())
	}
}

// TestPoisonUnderLoad counts, of 2,000 requests a second of which one in 10,000 kills its worker,
// how many workers die and how many other requests are harmed, with the quarantine and without.
func TestPoisonUnderLoad(t *testing.T) {
	if os.Getenv("COPPICE_SOAK") == "" {
		t.Skip("it takes a minute: set COPPICE_SOAK=1")
	}
	for _, tree := range []string{"poisoned by four", "poisoned by four, let through"} {
		t.Run(tree, func(t *testing.T) {
			crashed.ch = make(chan coppice.CrashReport, 1000)
			p := startTree(t, tree)
			url := "http://" + p.Listeners()[0].Addr.String()
			const clients, total = 20, 50_000
			var sent, ok, cut, refused, poison atomic.Int64
			tick := time.NewTicker(10 * time.Millisecond) // 20 requests each
			defer tick.Stop()
			turns := make(chan string, clients)
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					c := &http.Client{Transport: &http.Transport{}, Timeout: runtimetest.Patience}
					for path := range turns {
						resp, err := c.Get(url + path)
						switch {
						case path == "/poison":
							poison.Add(1)
						case err != nil:
							cut.Add(1)
						case resp.StatusCode == http.StatusOK:
							ok.Add(1)
						default:
							refused.Add(1)
						}
						if err == nil {
							_, _ = io.Copy(io.Discard, resp.Body)
							resp.Body.Close()
						}
					}
				})
			}
			for sent.Load() < total {
				<-tick.C
				for range 20 {
					path := "/"
					if sent.Add(1)%10_000 == 5_000 {
						path = "/poison"
					}
					turns <- path
				}
			}
			close(turns)
			all.Wait()
			t.Logf("%s: %d poison requests, %d deaths; of the others %d answered, %d cut, %d refused",
				tree, poison.Load(), len(crashed.ch), ok.Load(), cut.Load(), refused.Load())
			if refused.Load() > 0 || tree == "poisoned by four" && len(crashed.ch) > 3 {
				t.Errorf("%s: %d deaths, %d innocents refused", tree, len(crashed.ch), refused.Load())
			}
		})
	}
}
