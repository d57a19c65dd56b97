//go:build linux

package hosts_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// proxy passes the connections of one address on to another, until they are lost.
type proxy struct {
	ln net.Listener
	to string

	mu    sync.Mutex
	conns []*net.TCPConn
}

func newProxy(t *testing.T, listen, to string) *proxy {
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to}
	t.Cleanup(func() { _ = ln.Close(); p.lose() })
	go func() { // until the listener is closed
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil {
				_ = near.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, near.(*net.TCPConn), far.(*net.TCPConn))
			p.mu.Unlock()
			for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
				go func() { // until either ends
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
					_ = way[1].Close()
				}()
			}
		}
	}()
	return p
}

// lose resets all connections.
func (p *proxy) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	p.conns = nil
}

// TestLossesOverTCP: trunks of two programs over TLS on TCP that are lost again and again, with an
// actor that is watched over them, leave no descriptor and no goroutine in masters, gateways and
// workers, and no memory. COPPICE_SOAK=1 loses 1,000.
func TestLossesOverTCP(t *testing.T) {
	warm, losses := 5, 10
	if os.Getenv("COPPICE_SOAK") == "1" {
		warm, losses = 50, 1000
	}
	network := fmt.Sprintf("127.%d.%d", 1+os.Getpid()%200, 1+os.Getpid()/200%200)
	proxies := []*proxy{newProxy(t, network+".101:7400", network+".1:7400"), newProxy(t, network+".102:7400", network+".2:7400")}
	env := []string{netVar + "=" + network, certVar + "=" + certificates(t), peersVar + "=10", "COPPICE_CONTROL=off"}
	programs := map[string]*runtimetest.Program{}
	for _, name := range []string{"a", "b"} {
		programs[name] = runtimetest.Start(t, append(env, hostVar+"="+name))
	}
	a := programs["a"]
	pids := map[string]int{}
	for name, p := range programs {
		for _, child := range []string{"gateway/0", "web/0"} {
			pid, err := strconv.Atoi(p.Await(`^` + child + ` is (\d+)$`)[1])
			if err != nil {
				t.Fatal(err)
			}
			pids[name+"'s "+child] = pid
		}
		pids[name+"'s master"] = p.PID()
	}
	files := func(pid int) int {
		all, err := os.ReadDir(fmt.Sprint("/proc/", pid, "/fd"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	kilobytes := regexp.MustCompile(`VmRSS:\s*(\d+) kB`)
	memory := func(pid int) int {
		b, err := os.ReadFile(fmt.Sprint("/proc/", pid, "/status"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(kilobytes.FindStringSubmatch(string(b))[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	goroutines := func(n int) int { // of a's worker, when it has had its answer
		count, err := strconv.Atoi(a.Await(fmt.Sprintf(`answer %d of .*, (\d+) goroutines$`, n))[1])
		if err != nil {
			t.Fatal(err)
		}
		return count
	}
	lose := func(n int) {
		goroutines(n)
		for _, p := range proxies {
			p.lose()
		}
		if end := a.Await(fmt.Sprintf(`end %d: (.*)$`, n))[1]; !strings.Contains(end, "unreachable") {
			t.Fatalf("end %d: %s", n, end)
		}
	}
	for n := range warm {
		lose(n + 1)
	}
	before := goroutines(warm + 1)
	had, held := map[string]int{}, map[string]int{}
	for name, pid := range pids {
		had[name], held[name] = files(pid), memory(pid)
	}
	for n := range losses {
		lose(warm + n + 1)
	}
	after := goroutines(warm + losses + 1)
	if after > before+5 {
		t.Errorf("a's worker has %d goroutines, before %d", after, before)
	}
	for name, pid := range pids {
		until(t, name+" has more descriptors", func() bool { return files(pid) <= had[name]+2 })
		if m := memory(pid); m > held[name]+32<<10 {
			t.Errorf("%s has %d kB, before %d", name, m, held[name])
		}
		t.Logf("%s: %d descriptors, before %d; %d kB, before %d", name, files(pid), had[name], memory(pid), held[name])
	}
	t.Logf("a's worker: %d goroutines, before %d", after, before)
}
