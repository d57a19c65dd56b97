package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/bench/yardstick/peers"
	coppice "github.com/coppice-go/coppice/runtime"
)

// What these tests count does not depend on how fast the machine is. Each bound is that of the day
// when the test was written, with a little room: a change that raises a count must say why.

// asks makes n requests, one after the other, each over a connection of its own or all over one,
// and returns the last answer.
func asks(t *testing.T, addr, path string, n int, each bool) (answer string) {
	t.Helper()
	var c net.Conn
	var r *bufio.Reader
	for i := range n {
		if i == 0 || each {
			if c != nil {
				c.Close()
			}
			var err error
			if c, err = net.Dial("tcp", addr); err != nil {
				t.Fatal(err)
			}
			r = bufio.NewReader(c)
		}
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: yardstick\r\n\r\n", path)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		answer = string(b)
	}
	c.Close()
	return answer
}

// counts are allocations and sleeps of the process that serves.
type counts struct{ mallocs, sleeps float64 }

// perRequest starts a server and counts what a request costs it.
func perRequest(t *testing.T, start func() (*server, error), n int, each bool) (c counts) {
	t.Helper()
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	now := func() (c counts) {
		if _, err := fmt.Sscan(asks(t, s.addr.String(), "/counts", 1, true), &c.mallocs, &c.sleeps); err != nil {
			t.Fatal(err)
		}
		return c
	}
	asks(t, s.addr.String(), "/", n/4, each) // pools and tables grow
	before := now()
	asks(t, s.addr.String(), "/", n, each)
	after := now()
	return counts{(after.mallocs - before.mallocs) / float64(n), (after.sleeps - before.sleeps) / float64(n)}
}

func oneCoppice() (*server, error) { return startTree(treeArgs("http")...) }
func onePlain() (*server, error)   { return startPlain("http", 1) }

// attempts is how often a count that others on the machine can disturb may be too high.
const attempts = 5

// within fails unless one of some attempts is within its bounds; each returns what is out of them.
func within(t *testing.T, attempt func() string) {
	t.Helper()
	var out string
	for range attempts {
		if out = attempt(); out == "" {
			return
		}
	}
	t.Error(out)
}

// The ways in which requests come.
var ways = []struct {
	name                     string
	n                        int
	each                     bool
	mallocs, sleeps, systems float64 // how much more than a plain server's they may be, each
}{
	{"kept", 2000, false, 0.5, 1, 0.3},
	{"connection", 400, true, 11, 3, 1.5},
}

// A worker allocates no more for a request than a plain server does, and wakes up as often. For a
// new connection there may be so much more as there was when this was written.
func TestCountsPerRequest(t *testing.T) {
	tree.workers = 1
	for _, w := range ways {
		within(t, func() string {
			ours, plain := perRequest(t, oneCoppice, w.n, w.each), perRequest(t, onePlain, w.n, w.each)
			text := fmt.Sprintf("%s: %.2f allocations, %.2f sleeps; plain %.2f, %.2f", w.name, ours.mallocs, ours.sleeps, plain.mallocs, plain.sleeps)
			t.Log(text)
			if ours.mallocs <= plain.mallocs+w.mallocs && ours.sleeps <= plain.sleeps+w.sleeps {
				return ""
			}
			return text
		})
	}
}

// inputs are the system calls that move data; others, as futex and epoll_pwait, depend on who runs
// when.
var inputs = regexp.MustCompile(`^(read|write|sendmsg|recvmsg|sendto|recvfrom|accept4|close|shutdown|getsockopt|setsockopt|getpeername|getsockname|fcntl|dup3?|epoll_ctl|sendfile|splice)$`)

// summed is a line of strace's summary.
var summed = regexp.MustCompile(`(?m)^\s*[0-9.]+\s+[0-9.]+\s+[0-9]+\s+([0-9]+)\s.*?\b([a-z]\w*)$`)

// straced starts a server and makes requests: a few, and then n by strace. It returns the number of
// each system call of all processes.
func straced(t *testing.T, start func() (*server, error), path string, n int, each bool) map[string]float64 {
	t.Helper()
	out := filepath.Join(t.TempDir(), "calls")
	s, err := start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	asks(t, s.addr.String(), path, 1+n/4, each)
	var pids []string
	for _, cmd := range s.cmds {
		for _, pid := range family(cmd.Process.Pid) {
			pids = append(pids, "-p", strconv.Itoa(pid))
		}
	}
	cmd := exec.Command("strace", append([]string{"-f", "-c", "-o", out}, pids...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for attached, lines := 0, bufio.NewScanner(stderr); attached < len(pids)/2; { // it says so of each
		if !lines.Scan() {
			_ = cmd.Wait()
			t.Skip("strace cannot attach")
		}
		if strings.Contains(lines.Text(), "attached") {
			attached++
		}
	}
	go io.Copy(io.Discard, stderr)
	asks(t, s.addr.String(), path, n, each)
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, m := range summed.FindAllStringSubmatch(string(b), -1) {
		all[m[2]], _ = strconv.ParseFloat(m[1], 64)
	}
	if len(all) == 0 {
		t.Fatalf("no system calls: %s", b)
	}
	return all
}

// systemCalls counts those of a request that move data.
func systemCalls(t *testing.T, start func() (*server, error), n int, each bool) (all float64) {
	t.Helper()
	for name, k := range straced(t, start, "/", n, each) {
		if inputs.MatchString(name) {
			all += k
		}
	}
	return all / float64(n)
}

// TestSendfile: a file goes from the kernel to the client without a copy, under each policy.
func TestSendfile(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace")
	}
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(peers.FileVar, name)
	tree.workers = 1
	defer func(p coppice.Policy) { tree.policy = p }(tree.policy)
	for _, tree.policy = range []coppice.Policy{coppice.RoundRobin, coppice.LeastLoaded, coppice.Hash, coppice.Shared, coppice.ReusePort} {
		if got := straced(t, oneCoppice, "/file", 4, true); got["sendfile"] == 0 || got["write"] > 40 {
			t.Errorf("%s: %v", tree.policy, got)
		}
	}
}

// A kept connection costs all processes of a tree as many system calls as a plain server, a new one
// hardly more.
func TestSystemCallsPerRequest(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace")
	}
	tree.workers = 1
	for _, w := range ways {
		within(t, func() string {
			ours, plain := systemCalls(t, oneCoppice, w.n, w.each), systemCalls(t, onePlain, w.n, w.each)
			text := fmt.Sprintf("%s: %.2f system calls; plain %.2f", w.name, ours, plain)
			t.Log(text)
			if ours <= plain+w.systems {
				return ""
			}
			return text
		})
	}
}

// A kept connection does not cost more than 1.5 times what it does with plain net/http in each of
// some rounds. What a new one costs beside plain Go is only printed: it varies more than that.
func TestCPURatios(t *testing.T) {
	all := map[string]row{}
	for _, r := range pageRows() {
		all[r.name] = r
	}
	for _, p := range pairs {
		if p.row != "http_keepalive_coppice" && p.peer != "peer_go_accept_shared" {
			continue
		}
		within(t, func() string {
			var rs [2]result
			for i, name := range []string{p.row, p.peer} {
				var err error
				if rs[i], err = all[name].run(200 * time.Millisecond); err != nil {
					t.Skip(err)
				}
			}
			ratio := rs[0].CPU / rs[1].CPU
			text := fmt.Sprintf("%s: %.2f times the processor time of %s", p.row, ratio, p.peer)
			t.Log(text)
			if ratio <= 1.5 || p.row != "http_keepalive_coppice" {
				return ""
			}
			return text
		})
	}
}
