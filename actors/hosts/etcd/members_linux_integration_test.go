//go:build linux

package etcd_test

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

var membersFor = flag.Duration("members", 0, "how long TestMembers lasts; 0: one round of its faults")

const memberEnv = "COPPICE_TEST_ETCD_MEMBER"

// TestMain is a member of etcd where the variable says so: it runs until its stdin ends.
func TestMain(m *testing.M) {
	host := os.Getenv(memberEnv)
	if host == "" {
		runtimetest.Main(m, tree)
	}
	x := etcd.Embedded{Dir: os.Getenv(memberEnv + "_DIR"), Seats: seatHosts, Log: os.Getenv(memberEnv + "_LOG")}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	cfg := hosts.Config{Name: host, Engine: x.Quick()}
	if err := cfg.Member()(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var seatHosts = []string{"a", "b", "c"}

// members is an etcd of three processes, whose sockets the test joins: no port is opened.
type members struct {
	t     *testing.T
	dir   string
	cmds  map[string]*exec.Cmd
	stdin map[string]io.WriteCloser

	said output

	mu    sync.Mutex
	cut   map[[2]string]bool     // what the first sends does not reach the second
	conns map[net.Conn][2]string // from whom to whom
}

func (m *members) spec(host string) etcd.Embedded {
	return etcd.Embedded{Dir: filepath.Join(m.dir, host), Seats: seatHosts}
}

// output is what the members have logged.
type output struct {
	mu sync.Mutex
	b  strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// newMembers starts an etcd of three processes.
func newMembers(t *testing.T) *members {
	t.Helper()
	m := &members{
		t: t, dir: shortDir(t), cmds: make(map[string]*exec.Cmd), stdin: make(map[string]io.WriteCloser),
		cut: make(map[[2]string]bool), conns: make(map[net.Conn][2]string),
	}
	m.join()
	for _, host := range seatHosts {
		m.start(host)
	}
	t.Cleanup(func() {
		for _, host := range seatHosts {
			_ = m.cmds[host].Process.Kill()
			_ = m.cmds[host].Wait()
		}
		if t.Failed() {
			t.Log(m.said.String())
		}
	})
	return m
}

// join joins the members as their gateways would.
func (m *members) join() {
	for _, host := range seatHosts {
		tunnels, _ := m.spec(host).Joints(host)
		for _, tunnel := range tunnels {
			to := tunnel.Hosts[0]
			_, services := m.spec(to).Joints(to)
			if err := os.MkdirAll(filepath.Dir(tunnel.Socket), 0o700); err != nil {
				m.t.Fatal(err)
			}
			ln, err := net.Listen("unix", tunnel.Socket)
			if err != nil {
				m.t.Fatal(err)
			}
			m.t.Cleanup(func() { ln.Close() })
			go func() { // until the test ends
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go m.carry(c, host, to, services[0].Socket)
				}
			}()
		}
	}
}

// carry carries what two members say until either ends. What is cut off is read and lost, as by a
// network.
func (m *members) carry(c net.Conn, from, to, socket string) {
	defer c.Close()
	far, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer far.Close()
	half := func(in, out net.Conn, way [2]string) {
		b := make([]byte, 32<<10)
		for lost := false; ; {
			n, err := in.Read(b)
			m.mu.Lock()
			lost = lost || m.cut[way] // once a part is lost, all is
			m.mu.Unlock()
			if err != nil {
				break
			}
			if !lost {
				if _, err := out.Write(b[:n]); err != nil {
					break
				}
			}
		}
		in.Close()
		out.Close()
	}
	m.mu.Lock()
	m.conns[c] = [2]string{from, to}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.conns, c)
		m.mu.Unlock()
	}()
	go half(far, c, [2]string{to, from})
	half(c, far, [2]string{from, to})
}

// cutOff cuts ways, and no others. Connections with a cut way end when all is healed, as a trunk
// does.
func (m *members) cutOff(ways ...[2]string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, way := range m.conns {
		if m.cut[way] || m.cut[[2]string{way[1], way[0]}] {
			c.Close()
		}
	}
	clear(m.cut)
	for _, way := range ways {
		m.cut[way] = true
	}
}

// isolate cuts both ways between a member and the others.
func (m *members) isolate(host string) {
	var ways [][2]string
	for _, other := range seatHosts {
		if other != host {
			ways = append(ways, [2]string{host, other}, [2]string{other, host})
		}
	}
	m.cutOff(ways...)
}

func (m *members) start(host string) {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Stderr = &m.said
	cmd.Env = append(os.Environ(), memberEnv+"="+host, memberEnv+"_DIR="+filepath.Join(m.dir, host))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.cmds[host], m.stdin[host] = cmd, stdin
}

func (m *members) signal(host string, s syscall.Signal) {
	m.t.Helper()
	if err := m.cmds[host].Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

func (m *members) kill(host string) {
	m.t.Helper()
	m.signal(host, syscall.SIGKILL)
	_ = m.cmds[host].Wait() // as it was killed
}

// TestMembers: registers and names are linearizable while members of an etcd of three processes are
// killed, stopped, isolated and cut off in one direction, one after the other. -members=10m plays
// rounds for so long.
func TestMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three processes of etcd")
	}
	t.Parallel() // it waits for elections
	m := newMembers(t)
	h := newHistory()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	for i, host := range seatHosts {
		e, err := m.spec(host).Open(host)
		if err != nil {
			t.Fatal(err)
		}
		h.start(t, ctx, &clients, e, host, i)
	}
	// progress waits until so many more operations have ended well since now, with whoever has a
	// majority.
	progress := func(n int) {
		t.Helper()
		from, limit := h.count(), time.After(time.Minute)
		for h.count() < from+n {
			select {
			case <-limit:
				t.Fatalf("no progress in a minute: %v", h.done)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	progress(20)
	begun := time.Now()
	for round := 0; round == 0 || time.Since(begun) < *membersFor; round++ {
		victim, other := seatHosts[round%3], seatHosts[(round+1)%3]
		m.kill(victim)
		progress(20) // by the two others
		m.start(victim)
		progress(20)
		m.signal(other, syscall.SIGSTOP)
		progress(20)
		m.signal(other, syscall.SIGCONT)
		progress(20)
		m.isolate(victim)
		progress(20)
		m.cutOff([2]string{victim, other}) // one way
		progress(20)
		m.cutOff()
		progress(20)
	}
	cancel()
	clients.Wait()
	for _, wrong := range h.check() {
		t.Error(wrong)
	}
	t.Logf("%v", h.done)
}
