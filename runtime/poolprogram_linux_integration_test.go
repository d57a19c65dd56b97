//go:build linux

package coppice_test

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// webServer is a program as systemd starts it: it serves on descriptor 3, and tells how it is.
func webServer() {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		fmt.Println("LISTEN_PID is", os.Getenv("LISTEN_PID"))
		os.Exit(7)
	}
	var sockets []string
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasPrefix(to, "socket:") {
			sockets = append(sockets, filepath.Base(fd))
		}
	}
	slot, has := os.LookupEnv("COPPICE_SLOT")
	fmt.Printf("%s slot %q %v generation %s of %s sockets %v %s\n", os.Getenv("COPPICE_NAME"), slot, has, os.Getenv("COPPICE_GENERATION"), os.Getenv("LISTEN_FDNAMES"), sockets, os.Getenv("LISTEN_FDS"))
	ln, err := net.FileListener(os.NewFile(3, "http"))
	if err != nil {
		panic(err)
	}
	hang := make(chan struct{})
	if us, err := strconv.Atoi(os.Getenv("WATCHDOG_USEC")); err == nil {
		go func() {
			for {
				select {
				case <-time.After(time.Duration(us) * time.Microsecond / 4):
					notify(os.Getenv("NOTIFY_SOCKET"), "WATCHDOG=1")
				case <-hang:
					return
				}
			}
		}()
	}
	answer := func(c net.Conn) {
		defer c.Close()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return // the client has gone
		}
		text := strconv.Itoa(os.Getpid())
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		switch r.URL.Path {
		case "/hang":
			close(hang)
		case "/stopping":
			notify(os.Getenv("NOTIFY_SOCKET"), "STOPPING=1")
		case "/crash":
			fmt.Fprintln(os.Stderr, "no index")
			os.Exit(3)
		}
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		_ = ln.Close()
	}()
	if socket := os.Getenv("NOTIFY_SOCKET"); socket != "" {
		notify(socket, "READY=1\nSTATUS=serving")
	}
	fmt.Println("up")
	var conns sync.WaitGroup // an http.Server would drop a request that it reads after Shutdown
	for {
		c, err := ln.Accept()
		if err != nil {
			conns.Wait()
			return
		}
		conns.Go(func() { answer(c) })
	}
}

// ofPrograms is a tree of a listener and a pool of webServers.
func ofPrograms(p coppice.Pool, policy coppice.Policy) func() coppice.Config {
	return func() coppice.Config {
		p, program := p, itself("web server")
		p.Name, p.Command, p.Environment, p.Listeners = "web", program.Command, program.Environment, []string{"http"}
		p.Size, p.Ready.Notify = cmp.Or(p.Size, 1), p.Ready == coppice.Ready{}
		p.Intensity = supervisor.Intensity{Max: 100, Period: time.Second}
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Policy: policy}, p,
		}}
	}
}

func init() {
	programs["web server"] = webServer
	programs["slow to drain"] = func() { // in slot 1, until SIGUSR1
		stop, end := make(chan os.Signal, 1), make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		signal.Notify(end, syscall.SIGUSR1)
		fmt.Println("up")
		<-stop
		_ = syscall.Close(3)
		fmt.Println("closed")
		if os.Getenv("COPPICE_SLOT") == "1" {
			<-end
		}
	}
	trees["programs that drain slowly"] = func() coppice.Config {
		cfg := ofPrograms(coppice.Pool{Size: 2, Ready: coppice.Ready{Line: "^up$"}, Shutdown: runtimetest.Patience}, coppice.ReusePort)()
		p := cfg.Children[1].(coppice.Pool)
		p.Environment = itself("slow to drain").Environment
		cfg.Children[1] = p
		return cfg
	}
	trees["programs shared"] = ofPrograms(coppice.Pool{Size: 2}, coppice.Shared)
	trees["programs reuseport"] = ofPrograms(coppice.Pool{Size: 2, Ready: coppice.Ready{Line: "^up$"}}, coppice.ReusePort)
	trees["programs and a spare"] = ofPrograms(coppice.Pool{Spares: 1}, coppice.Shared)
	trees["programs that are watched"] = ofPrograms(coppice.Pool{
		Liveness: coppice.Liveness{Every: 50 * time.Millisecond, Timeout: 2 * time.Second, Abort: 50 * time.Millisecond}, Shutdown: time.Second,
	}, coppice.Shared)
	trees["a process that listens"] = func() coppice.Config {
		program := itself("web server")
		program.Listeners, program.Ready.Notify = []string{"http"}, true
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.Shared}, program,
		}}
	}
}

// addr returns the address of the only listener.
func (p *runningTree) addr() string { return p.Listeners()[0].Addr.String() }

// ready returns the PIDs of the n workers of the pool web, once all are there.
func (p *runningTree) ready(n int, but ...int) (pids []int) {
	p.t.Helper()
	runtimetest.Eventually(p.t, "the pool is up", func() bool {
		pids = nil
		for _, c := range p.Snapshot().Children {
			for _, w := range c.Children {
				if c.Name == "web" && w.Role == coppice.RoleWorker && w.State == coppice.StateRunning && w.PID != 0 {
					pids = append(pids, w.PID)
				}
			}
		}
		return len(pids) == n && !slices.ContainsFunc(pids, func(pid int) bool { return slices.Contains(but, pid) })
	})
	return pids
}

// TestPoolOfPrograms: a pool of another program is reloaded, killed and scaled under load: no
// client is refused, and only a kill cuts a connection.
func TestPoolOfPrograms(t *testing.T) {
	for _, policy := range []string{"shared", "reuseport"} {
		t.Run(policy, func(t *testing.T) {
			p := startTree(t, "programs "+policy)
			addr := p.addr()
			load := func(during func()) runtimetest.Counts {
				ctx, end := context.WithCancel(t.Context())
				defer end()
				counts := make(chan runtimetest.Counts)
				go func() {
					counts <- runtimetest.Load{URL: "http://" + addr + "/", InFlight: 4, Timeout: runtimetest.Patience}.Run(ctx)
				}()
				during()
				get(t, addr)
				end()
				c := <-counts
				t.Log(c)
				if c.Refused+c.Hung+c.Other > 0 || c.OK == 0 {
					t.Error(c)
				}
				return c
			}
			if _, err := p.CheckUpgrade(t.Context()); err == nil || !strings.Contains(err.Error(), "the workers of pool web are other programs") {
				t.Errorf("an upgrade: %v", err)
			}
			pids := p.ready(2)
			c := load(func() {
				for range 2 {
					if err := p.Reload(t.Context()); err != nil {
						t.Fatal(err)
					}
					pids = p.ready(2, pids...)
				}
				if err := p.Scale(t.Context(), "web", 3); err != nil {
					t.Fatal(err)
				}
			})
			if c.Cut > 0 {
				t.Errorf("cut by reloads: %v", c)
			}
			load(func() {
				for range 3 {
					pids := p.ready(3)
					if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
						t.Fatal(err)
					}
					p.ready(3, pids[0])
				}
			})
			if err := p.Scale(t.Context(), "web", 1); err != nil {
				t.Fatal(err)
			}
			pid := strconv.Itoa(p.ready(1)[0])
			runtimetest.Eventually(t, "the last worker answers", func() bool { // what has waited at a socket that is gone is reset
				r, err := http.Get("http://" + addr)
				if err != nil {
					return false
				}
				defer r.Body.Close()
				b, _ := io.ReadAll(r.Body)
				return string(b) == pid
			})
			runtimetest.Eventually(t, "the variables, and one socket", func() bool {
				out := p.output.String()
				return strings.Contains(out, `web/0 slot "0" true generation 1 of http sockets [3] 1`) &&
					strings.Contains(out, `web/1 slot "1" true generation 3 of http sockets [3] 1`)
			})
		})
	}
}

// TestProgramDrains: the socket of a slot that is removed is closed when its program closes it, not
// when the program has ended.
func TestProgramDrains(t *testing.T) {
	p := startTree(t, "programs that drain slowly")
	sub := p.Events(0)
	if err := p.Scale(t.Context(), "web", 1); err != nil {
		t.Fatal(err)
	}
	var drains coppice.Event
	for drains = range sub.All(t.Context()) {
		if drains.Kind == coppice.DrainBegan {
			break
		}
	}
	runtimetest.Eventually(t, "one socket", func() bool {
		b, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), fmt.Sprintf(":%04X 00000000:0000 0A", netip.MustParseAddrPort(p.addr()).Port())) == 1
	})
	if err := syscall.Kill(drains.PID, syscall.SIGUSR1); err != nil { // it drains until then
		t.Error(err)
	}
}

// TestProgramSpare: a spare that is another program takes the slot of a worker that dies; it has no
// slot in its variables.
func TestProgramSpare(t *testing.T) {
	p := startTree(t, "programs and a spare")
	sub := p.Events(0)
	var spare coppice.Event
	for spare = range sub.All(t.Context()) {
		if spare.Kind == coppice.SpareReady {
			break
		}
	}
	pids := p.ready(1)
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if now := p.ready(1, pids...); now[0] != spare.PID {
		t.Errorf("the slot has process %d, the spare was %d", now[0], spare.PID)
	}
	runtimetest.Eventually(t, "its variables", func() bool { // the line may come when it has its slot
		return strings.Contains(p.output.String(), "#"+strconv.Itoa(spare.ID)+` g1| web/spare slot "" false generation 1`)
	})
}

// TestProgramSays: what a program says of itself stands in the tree; a silent one hangs, one that
// crashes leaves its last lines, one that is stopping has a limit.
func TestProgramSays(t *testing.T) {
	p := startTree(t, "programs that are watched")
	addr := p.addr()
	get := func(path string) {
		r, err := http.Get("http://" + addr + path)
		if err == nil {
			_ = r.Body.Close()
		}
	}
	id := 0
	for _, c := range p.Snapshot().Children {
		if c.Name == "web" {
			id = c.Children[0].ID
		}
	}
	if _, err := p.Stacks(t.Context(), id); !errors.Is(err, coppice.ErrUnsupported) {
		t.Errorf("stacks: %v", err)
	}
	runtimetest.Eventually(t, "its status", func() bool { return strings.Contains(p.Snapshot().String(), ` "serving"`+"\n") })
	sub := p.Events(coppice.FromNow)
	exited := func() (ev coppice.Event) {
		for ev = range sub.All(t.Context()) {
			if ev.Kind == coppice.ChildExited {
				break
			}
		}
		return ev
	}
	get("/hang")
	if ev := exited(); !errors.Is(ev.Reason.Err(), coppice.ErrHung) {
		t.Errorf("a silent program: %v", ev.Reason)
	}
	p.ready(1)
	get("/crash")
	if ev := exited(); ev.Reason.Kind != supervisor.Exited || ev.Reason.Code != 3 {
		t.Errorf("a program that crashes: %v", ev.Reason)
	}
	runtimetest.Eventually(t, "the crash report", func() bool { return len(p.Crashes()) == 2 })
	r := p.Crashes()[0]
	said := slices.ContainsFunc(r.Lines, func(l coppice.OutputLine) bool { return l.Text == "no index" })
	if !said || !r.Ready || r.Role != "worker" || r.Name != "web/0" {
		t.Errorf("crash report %+v", r)
	}
	p.ready(1)
	get("/stopping")
	if ev := exited(); ev.Reason.Kind != supervisor.Killed {
		t.Errorf("a program that only says that it is stopping: %v", ev.Reason)
	}
}

// TestProgramDoesNotStart: what the error of a program that does not start says.
func TestProgramDoesNotStart(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		pool  coppice.Pool
		is    error
		words []string
	}{
		{"no such program", coppice.Pool{Command: []string{"/nowhere/server"}}, fs.ErrNotExist, []string{"web/0 did not start", "/nowhere/server"}},
		{"not executable", coppice.Pool{Command: []string{text}}, fs.ErrPermission, []string{text}},
		{
			"ends at once, as one that goes to the background",
			coppice.Pool{Command: []string{"sh", "-c", "echo going; sleep 3600 &"}, Ready: coppice.Ready{Notify: true}},
			nil,
			[]string{"it exited with 0 before it was ready (READY=1 on its NOTIFY_SOCKET)", "| going"},
		},
		{
			"fails",
			coppice.Pool{Command: []string{"sh", "-c", "echo no index; exit 3"}, Ready: coppice.Ready{Line: "up"}},
			nil,
			[]string{`exited with 3 before it was ready (a line like "up")`, "| no index"},
		},
		{
			"is never ready",
			coppice.Pool{Command: []string{"sleep", "3600"}, Ready: coppice.Ready{Notify: true}, StartTimeout: 100 * time.Millisecond},
			coppice.ErrNotReady,
			[]string{"it has not shown that it is ready (READY=1 on its NOTIFY_SOCKET) within 100ms"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.pool.Name, tt.pool.Size = "web", 1
			cfg, _ := forest(t, tt.pool)
			cfg.ListenerIsolation = coppice.GoroutineIsolation
			rt, err := coppice.Start(t.Context(), cfg)
			if err == nil {
				t.Error(rt.Shutdown(t.Context()))
				t.Fatal("it started")
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is not %v", err, tt.is)
			}
			for _, w := range tt.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
			noneLeft(t)
		})
	}
}

// TestProcessListens: a Process gets the sockets of its Listeners.
func TestProcessListens(t *testing.T) {
	p := startTree(t, "a process that listens")
	if answer := get(t, p.addr()); answer != strconv.Itoa(p.pid("program")) {
		t.Errorf("answer of %s", answer)
	}
	p.output.with(t, `program|  slot "" false generation  of http sockets [3] 1`)
}
