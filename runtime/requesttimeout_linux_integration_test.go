//go:build linux

package coppice_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
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

func init() {
	timed := func(timeout coppice.RequestTimeout, park time.Duration) func() coppice.Config {
		return func() coppice.Config {
			cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "http")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { timedHandler(ctx, rw, r) })})
			})
			web := cfg.Children[0].(coppice.Pool)
			web.RequestTimeout, web.Shutdown = timeout, time.Second
			web.Poison = coppice.Poison{Deaths: 2}
			web.Intensity = supervisor.Intensity{Max: 1, Period: time.Hour} // what uses it up shows
			web.Liveness = coppice.Liveness{Every: coppice.None}
			cfg.Children = []coppice.ChildSpec{coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Park: park}, web}
			cfg.Hooks.Crash = crashed.add
			return cfg
		}
	}
	const soft, hard = 100 * time.Millisecond, 300 * time.Millisecond
	trees["timed"] = timed(coppice.RequestTimeout{Soft: soft}, 0)
	trees["timed hard"] = timed(coppice.RequestTimeout{Soft: soft, Hard: hard}, 0)
	trees["timed hard, parks"] = timed(coppice.RequestTimeout{Hard: hard}, 20*time.Millisecond)
}

// timedHandler takes long in the way that the path says. Its header has the process.
func timedHandler(ctx context.Context, rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("Pid", strconv.Itoa(os.Getpid()))
	begun := func() { _ = http.NewResponseController(rw).Flush() } // the client may have gone
	switch "/" + strings.Split(r.URL.Path, "/")[1] {
	case "/waits":
		waitForSoft(rw, r)
	case "/spins": // on all processors, and on more
		begun()
		for range runtime.GOMAXPROCS(0) {
			go func() {
				for spins := true; spins; {
				}
			}()
		}
		for spins := true; spins; {
		}
	case "/blocks": // in the kernel
		begun()
		var p [2]int
		_ = syscall.Pipe(p[:]) // a read of descriptor 0 blocks too
		_, _ = syscall.Read(p[0], make([]byte, 1))
	case "/stops": // the whole process
		begun()
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		<-r.Context().Done()
	case "/polls": // until the worker drains
		extended := coppice.ExtendRequest(r.Context(), time.Minute)
		begun()
		<-ctx.Done()
		fmt.Fprint(rw, extended, r.Context().Err())
	case "/late": // until the worker drains, but over its deadlines
		begun()
		<-ctx.Done()
	case "/dies": // when it drains
		coppice.ExtendRequest(r.Context(), time.Minute)
		begun()
		<-ctx.Done()
		os.Exit(3)
	case "/hijacks":
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nPid: %d\r\n\r\n", os.Getpid())
		_, _ = io.Copy(c, c)
	}
}

//go:noinline
func waitForSoft(rw http.ResponseWriter, r *http.Request) {
	<-r.Context().Done()
	cause := context.Cause(r.Context())
	fmt.Fprint(rw, errors.Is(cause, coppice.ErrRequestTimeout), errors.Is(cause, context.DeadlineExceeded), coppice.ExtendRequest(r.Context(), time.Hour))
}

// begin begins a request, on a connection of its own, and returns the process that has it.
func (p *runningTree) begin(path string) (pid int, body io.ReadCloser) {
	p.t.Helper()
	c := http.Client{Transport: &http.Transport{}}
	resp, err := c.Get("http://" + p.Listeners()[0].Addr.String() + path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = resp.Body.Close() })
	pid, _ = strconv.Atoi(resp.Header.Get("Pid")) // 0 is seen
	return pid, resp.Body
}

// TestRequestTimeoutSoft: at the soft deadline a request's context ends, and the log shows the
// stack of its goroutine. The connection, and the worker, go on.
func TestRequestTimeoutSoft(t *testing.T) {
	p := startTree(t, "timed")
	c := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	pids := map[string]bool{}
	for _, path := range []string{"/", "/waits", "/", "/"} {
		resp, err := c.Get("http://" + p.Listeners()[0].Addr.String() + path)
		if err != nil {
			t.Fatal(path, err)
		}
		text, err := io.ReadAll(resp.Body)
		if want := map[string]string{"/waits": "true true false"}[path]; string(text) != want || err != nil {
			t.Errorf("%s: %q, %v", path, text, err)
		}
		_ = resp.Body.Close()
		pids[resp.Header.Get("Pid")] = true
	}
	if len(pids) > 2 {
		t.Errorf("processes %v", pids)
	}
	for _, what := range []string{"over its soft deadline", `key="GET /waits"`, "age=", "waitForSoft("} {
		runtimetest.Eventually(t, "the log has "+what, func() bool { return strings.Contains(p.output.String(), what) })
	}
}

// TestRequestTimeoutHard: at the hard deadline the worker is replaced, whatever its handler does.
// Clients of other requests lose nothing: those of a long poll that has asked for more time, those
// with idle connections, and those that ask all the time.
func TestRequestTimeoutHard(t *testing.T) {
	ways := []string{"/spins", "/blocks", "/stops"}
	if testing.Short() {
		ways = ways[1:2]
	}
	for _, tree := range []string{"timed hard", "timed hard, parks"} {
		for _, way := range ways {
			if tree != "timed hard" && (way != "/blocks" || testing.Short()) {
				continue
			}
			t.Run(tree+way, func(t *testing.T) {
				crashed.ch = make(chan coppice.CrashReport, 100)
				p := startTree(t, tree)
				events := p.Events(coppice.FromNow)
				// A stopped process takes all it has along, one that spins may: only who is not
				// there counts.
				alone := way != "/blocks"
				var lost, served atomic.Int64
				over := make(chan struct{})
				var clients sync.WaitGroup
				for range 4 {
					clients.Go(func() {
						tr := &http.Transport{DisableKeepAlives: alone}
						c := http.Client{Transport: tr, Timeout: runtimetest.Patience}
						defer tr.CloseIdleConnections()
						for {
							select {
							case <-over:
								return
							default:
							}
							resp, err := c.Get("http://" + p.Listeners()[0].Addr.String() + "/")
							if err != nil {
								t.Log(err)
								lost.Add(1)
								continue
							}
							if _, err = io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
								lost.Add(1)
							}
							_ = resp.Body.Close()
							served.Add(1)
						}
					})
				}
				polls := map[int]io.ReadCloser{}
				for !alone && len(polls) < 2 {
					at, body := p.begin("/polls")
					polls[at] = body
				}
				pid, _ := p.begin(way)
				ev := next(t, events, coppice.WorkerDue)
				if ev.Why != "request" || ev.PID != pid {
					t.Errorf("%v, want of process %d", ev, pid)
				}
				if !alone {
					if text, err := io.ReadAll(polls[pid]); string(text) != "true <nil>" || err != nil {
						t.Errorf("a long poll: %q, %v", text, err)
					}
				}
				r := crashed.await(t)
				close(over)
				clients.Wait()
				if !errors.Is(r.Reason.Err(), coppice.ErrRequestTimeout) || !strings.Contains(r.Reason.String(), way) || r.PID != pid {
					t.Errorf("process %d ended with %v, want %d", r.PID, r.Reason, pid)
				}
				if !slices.ContainsFunc(r.Serving, func(s coppice.ServedRequest) bool { return s.Key == "GET "+way }) {
					t.Errorf("it was serving %v", r.Serving)
				}
				if lost.Load() > 0 && !alone || lost.Load() > 8 || served.Load() == 0 {
					t.Errorf("%d requests of others lost, %d served", lost.Load(), served.Load())
				}
				next(t, events, coppice.WorkerReplaced)
			})
		}
	}
}

// TestRequestTimeoutPoison: a request that is over its hard deadline twice is refused, and those
// beside it are not. No restart budget is used.
func TestRequestTimeoutPoison(t *testing.T) {
	if testing.Short() {
		t.Skip("two seconds")
	}
	crashed.ch = make(chan coppice.CrashReport, 100)
	p := startTree(t, "timed hard")
	events := p.Events(coppice.FromNow)
	for range 2 {
		p.begin("/polls")
		p.begin("/blocks")
		next(t, events, coppice.WorkerDue)
		next(t, events, coppice.WorkerReplaced)
		next(t, events, coppice.WorkerDrained) // in one that drains, a request has no hard deadline
	}
	runtimetest.Eventually(t, "it is refused", func() bool { status, _ := p.visit("/blocks"); return status == http.StatusServiceUnavailable })
	if keys := p.quarantined(); len(keys) != 1 || keys[0].Key != "GET /blocks" {
		t.Errorf("quarantined: %+v", keys)
	}
	if status, text := p.visit("/"); status != http.StatusOK {
		t.Errorf("%d %s", status, text)
	}
	now, cancel := context.WithCancel(t.Context())
	cancel()
	for ev := range p.Events(0).All(now) {
		if ev.Kind == coppice.ChildRestarting {
			t.Errorf("%v", ev)
		}
	}
}

// TestRequestTimeoutEnds: of a worker that drains for a late request the end has the reason of what
// ended it: a request that kills it, whose key is counted for the death, or the one that is late
// still, though another was the first.
func TestRequestTimeoutEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("two seconds")
	}
	crashed.ch = make(chan coppice.CrashReport, 100)
	p := startTree(t, "timed hard")
	pids := map[int]bool{}
	for len(pids) < 2 { // one for each worker
		pid, _ := p.begin("/late")
		pids[pid] = true
	}
	p.begin("/blocks")
	if r := crashed.await(t); !errors.Is(r.Reason.Err(), coppice.ErrRequestTimeout) || !strings.Contains(r.Reason.String(), "/blocks") {
		t.Errorf("it ended with %v", r.Reason)
	}
	events := p.Events(coppice.FromNow)
	for _, path := range []string{"/blocks/a", "/blocks/b"} {
		blocked, _ := p.begin(path)
		for pid := 0; pid != blocked; {
			pid, _ = p.begin("/dies")
		}
		if r := crashed.await(t); r.Exit.Code != 3 || errors.Is(r.Reason.Err(), coppice.ErrRequestTimeout) {
			t.Errorf("it ended with %v", r.Reason)
		}
		next(t, events, coppice.WorkerReplaced)
	}
	runtimetest.Eventually(t, "what has killed it is refused", func() bool {
		return slices.ContainsFunc(p.quarantined(), func(k quarantinedKey) bool { return k.Key == "GET /dies" && k.Deaths >= 2 })
	})
}

// TestRequestTimeoutReload: a request over its hard deadline does not hold up a reload, nor is its
// worker replaced twice. A connection that a handler has taken over has no deadline.
func TestRequestTimeoutReload(t *testing.T) {
	if testing.Short() {
		t.Skip("two seconds")
	}
	p := startTree(t, "timed hard")
	c, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /hijacks HTTP/1.1\r\nHost: x\r\n\r\n")
	taken := bufio.NewReader(c)
	resp, err := http.ReadResponse(taken, nil)
	if err != nil {
		t.Fatal(err)
	}
	events := p.Events(coppice.FromNow)
	hijacked := resp.Header.Get("Pid")
	blocked, _ := p.begin("/blocks")
	if strconv.Itoa(blocked) == hijacked {
		t.Fatal("round-robin gives one worker both")
	}
	if ev := next(t, events, coppice.WorkerDue); ev.PID != blocked {
		t.Errorf("%v, want of process %d: the hijacked connection has no deadline", ev, blocked)
	}
	if _, err := fmt.Fprintln(c, "ping"); err != nil {
		t.Error(err)
	}
	if line, err := taken.ReadString('\n'); line != "ping\n" {
		t.Errorf("%q, %v", line, err)
	}
	p.begin("/blocks")
	if err := p.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if status, text := p.visit("/"); status != http.StatusOK || p.generationOf() != 2 {
		t.Errorf("%d %s, generation %d", status, text, p.generationOf())
	}
	if status, text := p.visit("/waits"); status != http.StatusOK || text != "true true false" {
		t.Errorf("in the new generation: %d %s", status, text)
	}
}
