package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) {
	runtimetest.Main(m, func() {
		if os.Getenv(plainVar) != "" {
			plain()
			return
		}
		main()
	})
}

// soak makes the tests below run at the length that the claims in the README
// are made for.
var soak = os.Getenv("COPPICE_SOAK") != ""

// hello is a running example: its URL, and its program.
type hello struct {
	*runtimetest.Program
	t   *testing.T
	url string
}

func start(t *testing.T, args ...string) *hello {
	t.Helper()
	p := runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	m := p.Await(`^(http://\S+)/  master pid (\d+)$`)
	if m[2] != strconv.Itoa(p.PID()) {
		t.Fatalf("it prints pid %s and is %d", m[2], p.PID())
	}
	return &hello{p, t, m[1]}
}

// fresh makes each request over a connection of its own.
var fresh = &http.Client{
	Timeout:   runtimetest.Patience,
	Transport: &http.Transport{DisableKeepAlives: true},
}

func (h *hello) get(path string) (string, error) {
	resp, err := fresh.Get(h.url + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s: %s", path, resp.Status, b)
	}
	return string(b), nil
}

func (h *hello) mustGet(path string) string {
	h.t.Helper()
	s, err := h.get(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// root asks which worker answers.
func (h *hello) root() (a struct{ Worker, ID, PID int }) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(h.mustGet("/")), &a); err != nil {
		h.t.Fatal(err)
	}
	return a
}

// tree asks for the live tree.
func (h *hello) tree() coppice.Tree {
	h.t.Helper()
	var tree coppice.Tree
	if err := json.Unmarshal([]byte(h.mustGet("/tree")), &tree); err != nil {
		h.t.Fatal(err)
	}
	return tree
}

// workers returns the process numbers of the live workers.
func (h *hello) workers() []int {
	h.t.Helper()
	var pids []int
	tree := h.tree()
	tree.Walk(func(n coppice.Tree) {
		if n.Role == "worker" && n.PID != 0 {
			pids = append(pids, n.PID)
		}
	})
	return pids
}

// TestSharesDifferByOne: sequential connections are dealt out in turn.
func TestSharesDifferByOne(t *testing.T) {
	h := start(t, "-workers", "3", "-quiet")
	requests := 1_000
	if soak {
		requests = 10_000
	}
	shares := map[int]int{}
	for range requests {
		shares[h.root().Worker]++
	}
	low, high := requests, 0
	for slot := range 3 {
		low, high = min(low, shares[slot]), max(high, shares[slot])
	}
	if high-low > 1 {
		t.Errorf("shares %v of %d requests differ by more than 1", shares, requests)
	}
	t.Logf("%d requests: shares %v", requests, shares)
}

// TestKillUnderLoad: workers are killed again and again while clients ask.
// No client is refused and none hangs, whatever the policy. What is cut is what
// the killed worker had claimed, or for shared had accepted: at most all that
// was in flight at each kill.
func TestKillUnderLoad(t *testing.T) {
	length := 4 * time.Second
	if soak {
		length = 20 * time.Second
	}
	for _, policy := range []string{"round-robin", "shared"} {
		t.Run(policy, func(t *testing.T) {
			h := start(t, "-workers", "2", "-quiet", "-policy", policy)
			ctx, cancel := context.WithTimeout(t.Context(), length)
			defer cancel()
			counts := make(chan runtimetest.Counts)
			load := runtimetest.Load{URL: h.url, InFlight: 16}
			go func() { counts <- load.Run(ctx) }()

			kills := 0
			for tick := time.NewTicker(500 * time.Millisecond); ctx.Err() == nil; {
				select {
				case <-tick.C:
				case <-ctx.Done():
					continue
				}
				pids := h.workers()
				if len(pids) == 0 {
					continue // both are being replaced
				}
				if syscall.Kill(pids[rand.IntN(len(pids))], syscall.SIGKILL) == nil {
					kills++
				}
			}
			c := <-counts
			t.Logf("%s: %d kills; %v", policy, kills, c)
			if c.Refused != 0 || c.Hung != 0 || c.Other != 0 {
				t.Errorf("refused %d, hung %d, other %d: want none", c.Refused, c.Hung, c.Other)
			}
			if c.Cut > int64(kills*load.InFlight) {
				t.Errorf("%d requests cut by %d kills of a worker with at most %d in flight", c.Cut, kills, load.InFlight)
			}
			if c.OK == 0 || kills == 0 {
				t.Errorf("nothing was tried: %d answers, %d kills", c.OK, kills)
			}
		})
	}
}

// TestListenerKilled: the process that accepts is killed again and again while
// clients ask. The backlog is the master's, so no client is refused; what it held and
// no worker had claimed is cut, at most all that was in flight.
func TestListenerKilled(t *testing.T) {
	kills := 5
	if soak {
		kills = 40
	}
	h := start(t, "-workers", "2", "-quiet")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	counts := make(chan runtimetest.Counts)
	load := runtimetest.Load{URL: h.url, InFlight: 16}
	go func() { counts <- load.Run(ctx) }()
	for range kills {
		before := 0
		runtimetest.Eventually(t, "a listener process", func() bool {
			before = h.listener()
			return before != 0
		})
		if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "another listener process", func() bool {
			now := h.listener()
			return now != 0 && now != before
		})
		h.root() // through the new one
	}
	cancel()
	c := <-counts
	t.Logf("%d kills; %v", kills, c)
	if c.Refused != 0 || c.Hung != 0 || c.Other != 0 {
		t.Errorf("refused %d, hung %d, other %d: want none", c.Refused, c.Hung, c.Other)
	}
	if c.Cut > int64(kills*load.InFlight) || c.OK == 0 {
		t.Errorf("%d cut by %d kills, %d answered", c.Cut, kills, c.OK)
	}
}

// listener returns the process that accepts. The question may itself be cut.
func (h *hello) listener() (pid int) {
	body, err := h.get("/tree")
	if err != nil {
		return 0
	}
	var tree coppice.Tree
	if err := json.Unmarshal([]byte(body), &tree); err != nil {
		h.t.Fatal(err)
	}
	tree.Walk(func(n coppice.Tree) {
		if n.Role == "listener" && n.State == "running" {
			pid = n.PID
		}
	})
	return pid
}

// TestAllWorkersDead: with every worker killed at once a client waits in the
// backlog and is answered by a replacement.
func TestAllWorkersDead(t *testing.T) {
	for _, policy := range []string{"round-robin", "shared"} {
		t.Run(policy, func(t *testing.T) {
			h := start(t, "-workers", "2", "-quiet", "-policy", policy)
			before := h.workers()
			for _, pid := range before {
				runtimetest.Freeze(t, pid)
			}
			// Stopped first and killed after the client has connected, so that the
			// request is certainly made in the gap.
			conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, pid := range before {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")
			if err := conn.SetReadDeadline(time.Now().Add(runtimetest.Patience)); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 OK") {
				t.Fatalf("answer %q, error %v", answer, err)
			}
		})
	}
}

// TestTerminate: SIGTERM lets a request finish, ends with 0, and leaves no process.
func TestTerminate(t *testing.T) {
	for _, isolation := range []string{"process", "goroutine"} {
		t.Run(isolation, func(t *testing.T) {
			h := start(t, "-workers", "2", "-isolation", isolation)
			kids := runtimetest.Children(t, h.PID())
			if want := map[string]int{"process": 3, "goroutine": 0}[isolation]; len(kids) != want {
				t.Fatalf("%d children, want %d", len(kids), want)
			}
			answered := h.begin("/sleep?ms=2000")
			h.Signal(syscall.SIGTERM)
			if err := <-answered; err != nil {
				t.Errorf("the sleeper: %v", err)
			}
			if code := h.Wait(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			for _, pid := range kids {
				if runtimetest.Alive(pid) {
					t.Errorf("process %d is left", pid)
				}
			}
		})
	}
}

// TestCtrlC: the terminal sends SIGINT to the whole process group of the program,
// which is the master's alone: the workers drain, and a request finishes.
func TestCtrlC(t *testing.T) {
	h := start(t, "-workers", "2", "-quiet")
	answered := h.begin("/sleep?ms=500")
	if err := syscall.Kill(-h.PID(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the sleeper: %v", err)
	}
	if code := h.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// TestOutputTagged: what a worker prints comes behind its name and number.
func TestOutputTagged(t *testing.T) {
	h := start(t, "-workers", "1", "-quiet")
	if _, err := h.get("/crash?how=panic"); err == nil {
		t.Error("a crash was answered")
	}
	h.Await(`^web/0#\d+ g1\| panic: asked to panic$`)
}

// begin sends a request and returns when all of it is on its way; its end comes
// on the channel.
func (h *hello) begin(path string) <-chan error {
	h.t.Helper()
	wrote, ended := make(chan struct{}), make(chan error, 1)
	ctx := httptrace.WithClientTrace(h.t.Context(), &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { close(wrote) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	go func() {
		resp, err := fresh.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		ended <- err
	}()
	select {
	case <-wrote:
	case err := <-ended:
		h.t.Fatalf("%s: %v", path, err)
	}
	return ended
}

// TestMasterKilled: no process outlives its master, blocked ones included, by more
// than OrphanDrain, which is 1 s. The time is checked in the long run, where the
// machine is quiet.
func TestMasterKilled(t *testing.T) {
	h := start(t, "-workers", "2", "-quiet")
	kids := runtimetest.Children(t, h.PID())
	if len(kids) != 3 {
		t.Fatalf("%d children, want 3", len(kids))
	}
	h.begin("/block?ms=60000") // its worker ends with the others
	h.Signal(syscall.SIGKILL)
	killed := time.Now()
	h.Wait()
	for _, pid := range kids {
		runtimetest.Eventually(t, fmt.Sprintf("process %d gone", pid), func() bool { return !runtimetest.Alive(pid) })
	}
	took := time.Since(killed)
	t.Logf("all gone after %v", took)
	if limit := 2 * time.Second; soak && took > limit || took > 20*limit {
		t.Errorf("all gone after %v, want %v", took, limit)
	}
}

// TestSecondSignal ends at once what a first has asked to end.
func TestSecondSignal(t *testing.T) {
	h := start(t, "-workers", "2")
	h.begin("/sleep?ms=60000") // cut by the second signal
	kids := runtimetest.Children(t, h.PID())
	h.Signal(syscall.SIGINT)
	h.Await("shutting down")
	h.Signal(syscall.SIGQUIT)
	if code := h.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, pid := range kids {
		runtimetest.Eventually(t, fmt.Sprintf("process %d gone", pid), func() bool { return !runtimetest.Alive(pid) })
	}
}

// TestGivesUp: by Erlang's rules a worker that crashes too often ends the program, which
// says which child it was, why, and what the budget was.
func TestGivesUp(t *testing.T) {
	h := start(t, "-workers", "1", "-restarts", "3", "-otp")
	for running := true; running; {
		if _, err := h.get("/crash?how=exit"); err == nil {
			t.Fatal("a crash was answered")
		}
		select {
		case <-h.Ended():
			running = false
		default:
		}
	}
	if code := h.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	h.Await(`^coppice: .*master/web: gave up: more than 3 restarts in 10s: .*web/0.*(exit code|exited with) 3`)
}

// TestShortage: the master cannot start a process, because it is out of descriptors,
// while workers are killed: live workers go on, it is logged once that it begins and once
// that it ends, and the slots have their workers then. No budget, here of 3, is touched.
func TestShortage(t *testing.T) {
	h := start(t, "-workers", "3", "-restarts", "3")
	lives := h.root().PID
	var limit unix.Rlimit
	if err := unix.Prlimit(h.PID(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 3, Max: limit.Max} // descriptors that are open stay open
	if err := unix.Prlimit(h.PID(), unix.RLIMIT_NOFILE, &none, nil); err != nil {
		t.Fatal(err)
	}
	killed := map[int]bool{}
	for len(killed) < 2 {
		if pid := h.root().PID; pid != lives && !killed[pid] {
			killed[pid] = true
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.Await(`level=ERROR msg="the master is short of what a start takes.* name=web/.*RLIMIT_NOFILE .* is 3`)
	for range 20 {
		if pid := h.root().PID; pid != lives {
			t.Fatalf("process %d answers, only %d lives", pid, lives)
		}
	}
	if err := unix.Prlimit(h.PID(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	h.Await(`level=WARN msg="the shortage is over.* starts=2 attempts=`)
	pids := map[int]bool{}
	runtimetest.Eventually(t, "three workers answer", func() bool {
		pids[h.root().PID] = true
		return len(pids) == 3
	})
	for _, line := range h.Lines() {
		if strings.Contains(line, "start failed") {
			t.Error(line)
		}
	}
}

// TestCrashStorm: requests that kill the worker that answers them do not end a service,
// beyond its budget neither: those that wait are answered by the workers that come back, and it is
// told.
func TestCrashStorm(t *testing.T) {
	h := start(t, "-workers", "4", "-restarts", "4")
	for range 10 {
		if _, err := h.get("/crash?how=segv"); err == nil {
			t.Fatal("a crash was answered")
		}
	}
	h.root()
	h.Await(`level=ERROR msg="supervisor: goes on over its budget" path=master/web .*more than 4 restarts in 10s: .*web/\d: exit code 2`)
	h.Signal(syscall.SIGTERM)
	if code := h.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestWaysToDie: each end is told apart, in one line.
func TestWaysToDie(t *testing.T) {
	const early = `(before it was ready[^:]*: )?` // its request may come before its master knows that it is ready
	h := start(t, "-workers", "1")
	for _, tt := range []struct{ how, reason string }{
		{"exit", `exit code 3`},
		{"panic", `exit code 2: ` + early + `panic: asked to panic`},
		{"fatal", `exit code 2: ` + early + `fatal error: concurrent map writes`},
		{"segv", `exit code 2: ` + early + `(panic: runtime error|unexpected fault address|fatal error)`},
		{"kill", `signal 9 .killed.`},
	} {
		if _, err := h.get("/crash?how=" + tt.how); err == nil {
			t.Errorf("%s: a crash was answered", tt.how)
		}
		h.Await(`(exited|start failed).*web/0.*reason="` + tt.reason)
	}
}

// TestAtBase: after many kills the master is as it was.
func TestAtBase(t *testing.T) {
	kills := 25
	if soak {
		kills = 200
	}
	h := start(t, "-workers", "2", "-quiet")
	h.root()
	base := runtimetest.Descriptors(t, h.PID())
	for range kills {
		pid := h.root().PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "the replacement", func() bool { return len(h.workers()) == 2 && !runtimetest.Alive(pid) })
	}
	runtimetest.Eventually(t, "descriptors and children as at the start", func() bool {
		// Not more: at the start one that was just handed to a child may still be open.
		return len(runtimetest.Descriptors(t, h.PID())) <= len(base) && len(runtimetest.Children(t, h.PID())) == 3
	})
	t.Logf("%d kills: %d descriptors, %d children, as before", kills, len(base), 3)
}

// TestBadFlags: what cannot be used is named, with exit code 2, and nothing is
// started.
func TestBadFlags(t *testing.T) {
	for _, tt := range []struct {
		name, says string
		args       []string
	}{
		{"size", "-workers", []string{"-workers", "-3"}},
		{"policy", `-policy.*fair`, []string{"-policy", "fair"}},
		{"isolation", `-isolation.*thread`, []string{"-isolation", "thread"}},
		{"address", `port`, []string{"-addr", "127.0.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := runtimetest.Start(t, nil, tt.args...)
			p.Await(tt.says)
			if code := p.Wait(); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
		})
	}
	for _, tt := range []struct{ name, says, env string }{
		{"half the variables", "COPPICE_CHANNEL", "COPPICE_CHANNEL=77"},
		{"no number", "COPPICE_CHANNEL", "COPPICE_CHANNEL=seven"},
		{"no socket", "COPPICE_CHANNEL", "COPPICE_CHANNEL=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := runtimetest.Start(t, []string{tt.env})
			p.Await(tt.says)
			if code := p.Wait(); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
		})
	}
}

// TestPortTaken: the worker gets EADDRINUSE, as from net.Listen, and the program
// ends.
func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	p := runtimetest.Start(t, nil, "-addr", ln.Addr().String(), "-quiet")
	p.Await(`bind: address already in use`)
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}
