package netactor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// shutDown shuts the socket of a listener down, as code of a worker's that has it can.
func (tr *tree) shutDown(key socketKey) {
	tr.t.Helper()
	fd := -1
	until(tr.t, "the socket to listen", func() bool {
		tr.quiet()
		tr.table.mu.Lock()
		defer tr.table.mu.Unlock()
		s := tr.table.sockets[key]
		if s == nil || !s.listening() {
			return false
		}
		var err error
		if fd, err = unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			tr.t.Fatal(err)
		}
		return true
	})
	defer unix.Close(fd)
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		tr.t.Fatalf("shutdown of descriptor %d: %v", fd, err)
	}
	// Most often before the socket listens again, so that it would pass on to what it accepts that it is shut down.
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
}

// quiet waits until the master has done all there is to do.
func (tr *tree) quiet() {
	until(tr.t, "the master to have done it", func() bool {
		tr.table.mu.Lock()
		defer tr.table.mu.Unlock()
		return !tr.table.busy
	})
}

// A worker that has a listening socket can shut it down for all. The master notices, with or
// without somebody who accepts, and listens again; under the same address, and whoever had it
// serves on.
func TestShutDownSocket(t *testing.T) {
	for _, p := range []Policy{RoundRobin, Shared, ReusePort} {
		for _, r := range []Request{loopback, {Network: "unix", Address: "s"}} {
			if p == ReusePort && r.Network == "unix" {
				continue
			}
			t.Run(fmt.Sprint(p, " ", r.Network), func(t *testing.T) {
				if r.Network == "unix" {
					r.Address = filepath.Join(t.TempDir(), r.Address)
				}
				r.Policy = p
				tr := newTree(t, false)
				a, b := tr.worker(0), tr.worker(1)
				lna, lnb := a.mustListen(r), b.mustListen(r)
				addr := lna.Addr()
				check := func(what string) {
					t.Helper()
					until(t, what, func() bool { s, err := tryAsk(addr.Network(), addr.String()); return err == nil && s != "" })
				}
				tr.shutDown(socketKey{1, 0}) // nobody accepts: the master alone can notice
				until(t, "it to listen", func() bool {
					c, err := net.Dial(addr.Network(), addr.String())
					if err == nil {
						c.Close()
					}
					return err == nil
				})
				go serveID(lna, "a")
				go serveID(lnb, "b")
				check("an answer")
				for i := range 2 {
					tr.shutDown(socketKey{1, 0})
					for range 20 {
						check(fmt.Sprintf("an answer after shutdown %d", i+2))
					}
				}
				if got := tr.table.Sockets()[0]; got.Address != addr.String() || len(got.Workers) != 2 {
					t.Errorf("%+v", got)
				}
				lna.Close()
				lnb.Close()
			})
		}
	}
}

// What is remembered of repairs goes with the socket: a worker that has many repaired, one after the other, leaves nothing
// behind.
func TestRepairsForgotten(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	for range 20 {
		ln := w.mustListen(loopback)
		w.ls.send(w.master[1], &fdipc.Frame{Kind: KindBroken, Target: tr.table.Sockets()[0].Number})
		ln.Close()
		until(t, "the socket to be closed", func() bool { return len(tr.table.Sockets()) == 0 })
	}
	tr.quiet()
	if n := len(tr.table.repairs); n > 0 {
		t.Errorf("%d are remembered", n)
	}
}

// The watch for shutdowns costs nothing: connections wake nobody in the master.
func TestWatchSleeps(t *testing.T) {
	var told atomic.Int64
	w, err := newShutdownWatcher(func(uint64) { told.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSocket(socketSpec{Request: Request{Network: "tcp4", Address: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	w.add(s, 7)
	ended := make(chan struct{})
	go func() { w.run(); close(ended) }()
	_, addr, _ := s.address()
	for range 50 {
		if err := connects("tcp", addr); err != nil {
			t.Fatal(err)
		}
	}
	if n := told.Load(); n != 0 {
		t.Errorf("told %d times of connections", n)
	}
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	until(t, "the hang-up", func() bool { return told.Load() > 0 })
	w.remove(s)
	w.close()
	<-ended
	if n := told.Load(); n != 1 {
		t.Errorf("told %d times of one shutdown", n)
	}
}

// Pause and resume hold for workers that accept themselves too, and for those that come while it
// is paused.
func TestPauseOwn(t *testing.T) {
	for _, p := range []Policy{Shared, ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := loopback
			r.Policy = p
			ln := tr.worker(0).mustListen(r)
			addr := ln.Addr().String()
			go serveID(ln, "a")
			ask1(t, "tcp", addr)
			if !tr.table.Pause(1) || !tr.table.Sockets()[0].Paused {
				t.Fatal("not paused")
			}
			until(t, "the pause", func() bool {
				l := tr.workers[1].ls.directListener(1)
				l.mu.Lock()
				defer l.mu.Unlock()
				return l.paused
			})
			late := tr.worker(1).mustListen(r)
			go serveID(late, "b")
			const n = 20
			answers := make(chan error, n)
			for range n {
				go func() {
					_, err := tryAsk("tcp", addr)
					answers <- err
				}()
			}
			until(t, "connections in the backlog", func() bool { return tr.backlog(1) >= n })
			select {
			case err := <-answers:
				t.Fatalf("answered while paused, %v", err)
			default:
			}
			tr.table.Resume(1)
			for range n {
				if err := <-answers; err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// backlog is how many connections wait in the backlogs of a listener.
func (tr *tree) backlog(number uint64) (n int) {
	tr.table.mu.Lock()
	defer tr.table.mu.Unlock()
	for key, s := range tr.table.sockets {
		if ti, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && key.number == number {
			n += int(ti.Unacked)
		}
	}
	return n
}

// Each worker has a socket of its own, and it is the master's too: what waits in the backlog of a
// worker that is killed is served by its replacement, and nobody is refused meanwhile.
func TestReusePortDeath(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy = ReusePort
	lns := make([]net.Listener, 2)
	for i := range lns {
		lns[i] = tr.worker(i).mustListen(r)
	}
	addr := lns[0].Addr().String()
	if got := tr.table.Sockets()[0]; got.Group != 2 {
		t.Fatalf("%+v", got)
	}
	const n = 40
	answers := make(chan string, n)
	for range n {
		go func() {
			s, err := tryAsk("tcp", addr)
			answers <- fmt.Sprint(s, err)
		}()
	}
	until(t, "connections in the backlogs", func() bool { return tr.backlog(1) == n })
	for _, w := range []*testWorker{tr.workers[1], tr.workers[2]} {
		w.kill()
	}
	for _, ln := range lns {
		ln.Close()
	}
	for i := range lns {
		go serveID(tr.worker(i).mustListen(r), "x")
	}
	for range n {
		if s := <-answers; s != "x<nil>" {
			t.Errorf("answer %q", s)
		}
	}
	if got := tr.table.Sockets()[0]; got.Group != 2 {
		t.Errorf("%+v", got)
	}
}

// A worker that is not replaced takes its socket along, unless it is the last one: that waits for
// the next worker.
func TestReusePortRetire(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy, r.Name = ReusePort, "http"
	addr, err := tr.table.Open(testContext(t), "listener/http", r)
	if err != nil {
		t.Fatal(err)
	}
	members := func() int { return tr.table.Sockets()[0].Group }
	if err := connects("tcp", addr.String()); err != nil {
		t.Fatalf("before the first worker: %v", err)
	}
	var workers []*testWorker
	for i := range 3 {
		w := tr.worker(i)
		go serveID(w.mustListen(Request{Name: "http"}), fmt.Sprint(i))
		workers = append(workers, w)
	}
	if n := members(); n != 3 {
		t.Fatalf("%d members", n)
	}
	workers[0].gone(true)
	_ = workers[1].ls.Drain(testContext(t))
	until(t, "one member", func() bool { return members() == 1 })
	tr.quiet()
	for range 20 {
		if s := ask1(t, "tcp", addr.String()); s != "2" {
			t.Fatalf("answer of %q", s)
		}
	}
	workers[2].gone(true)
	answer := make(chan string, 1)
	go func() {
		s, err := tryAsk("tcp", addr.String())
		answer <- fmt.Sprint(s, err)
	}()
	go serveID(tr.worker(7).mustListen(Request{Name: "http"}), "7")
	if s := <-answer; s != "7<nil>" {
		t.Errorf("answer %q", s)
	}
}

// A reload: the new worker of a slot gets the socket that the old one has, so that nothing is lost
// when that goes.
func TestReusePortReload(t *testing.T) {
	m := newMaster(t)
	m.s.addWorker(Worker{ID: 1, Pool: "web", Slot: 0, Generation: 1})
	m.s.addWorker(Worker{ID: 2, Pool: "web", Slot: 1, Generation: 1})
	r := tcp("127.0.0.1:80")
	r.Policy = ReusePort
	m.ask(1, r)
	m.ask(2, r)
	m.s.addWorker(Worker{ID: 3, Pool: "web", Slot: 0, Generation: 2})
	number := m.ask(3, r).Number
	s := m.s.sockets[number]
	if len(s.group) != 2 || s.groupIndexOf(3) != s.groupIndexOf(1) || s.groupIndexOf(2) == s.groupIndexOf(1) {
		t.Fatalf("members %+v", s.group)
	}
	for _, e := range m.s.closed(1, number) {
		if e.kind == doRetire {
			t.Error("the old worker took the socket along")
		}
	}
	if len(s.group) != 2 {
		t.Errorf("%d members", len(s.group))
	}
}

// Closing one of several sockets on a port resets what is in its backlog, unless the kernel is told
// to give it to the others: net.ipv4.tcp_migrate_req, in a network of its own here.
func TestReusePortMigrates(t *testing.T) {
	done := make(chan struct{})
	go func() { // its thread ends with it: it is not to be used for anything else
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Logf("not tested: needs the right to make a network namespace: %v", err)
			return
		}
		loopbackUp(t)
		const file = "/proc/sys/net/ipv4/tcp_migrate_req"
		for _, on := range []bool{false, true} {
			value := "0"
			if on {
				value = "1"
			}
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				t.Logf("not tested: %v", err)
				return
			}
			if got := migrates(); got != on {
				t.Errorf("migrates() is %v, want %v", got, on)
			}
			r := Request{Network: "tcp4", Address: "127.0.0.1:0", Policy: ReusePort}
			a := opened(t, r)
			_, r.Address, _ = a.address()
			b := openedSpec(t, socketSpec{Request: r, joins: true})
			const n = 40
			for range n {
				dialHere(t, r.Address)
			}
			queued := func(s *socket) int {
				ti, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
				if err != nil {
					t.Error(err)
				}
				return int(ti.Unacked)
			}
			lost := queued(b)
			if queued(a)+lost != n || lost == 0 {
				t.Errorf("backlogs of %d and %d", queued(a), lost)
			}
			b.close()
			if want := n - lost; on && queued(a) != n || !on && queued(a) != want {
				t.Errorf("migrate %v: %d in the backlog that is left, %d were in the one closed", on, queued(a), lost)
			}
			a.close()
		}
	}()
	<-done
}

// dialHere connects in the network of this thread.
func dialHere(t *testing.T, address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: portOf(t, address), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Error(err)
	}
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Error(err)
		return
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Error(err)
	}
}

// Two clusters do not share a port by accident, also under ReusePort; and a member's address is not
// taken from them.
func TestReusePortTaken(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy = ReusePort
	addr := tr.worker(0).mustListen(r).Addr().String()
	for _, p := range []Policy{ReusePort, RoundRobin} {
		if _, err := newSocket(socketSpec{Request: Request{Network: "tcp4", Address: addr, Policy: p}}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v: %v", p, err)
		}
	}
}

// A request by name alone can wait until there is one of that name; its end, its context's, and
// the end of its pool, end the wait.
func TestListenWaits(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		r := Request{Name: "late", Wait: true}
		got := make(chan net.Listener, 2)
		for i := range 2 {
			w := tr.worker(i)
			go func() {
				ln, err := w.listen(r)
				if err != nil {
					t.Error(err)
				}
				got <- ln
			}()
		}
		given := tr.worker(2)
		ctx, cancel := context.WithCancel(context.Background())
		waits := func() int {
			tr.table.mu.Lock()
			defer tr.table.mu.Unlock()
			return len(tr.table.state.awaitingName["late"])
		}
		ended := make(chan error, 1)
		go func() {
			_, err := given.ls.Listen(ctx, r)
			ended <- err
		}()
		until(t, "three to wait", func() bool { return waits() == 3 })
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		until(t, "two to wait", func() bool { return waits() == 2 })
		open := loopback
		open.Name = "late"
		addr, err := tr.table.Open(testContext(t), "listener/late", open)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if ln := <-got; ln.Addr().String() != addr.String() {
				t.Errorf("%s, want %s", ln.Addr(), addr)
			}
		}
		go func() {
			_, err := given.listen(Request{Name: "never", Wait: true})
			ended <- err
		}()
		until(t, "one to wait", func() bool {
			tr.table.mu.Lock()
			defer tr.table.mu.Unlock()
			return len(tr.table.state.awaitingName) == 1
		})
		tr.table.StopOwner("web")
		if err := <-ended; !errors.Is(err, syscall.ECANCELED) {
			t.Error(err)
		}
	})
}

// One worker cannot use up the master's descriptors: beyond maxSockets it is told EMFILE, others
// go on, and what it closes it may open again.
func TestTooManySockets(t *testing.T) {
	m := newMaster(t)
	m.worker(1, 0)
	m.worker(2, 0)
	for i := range maxSockets {
		if r := m.ask(1, tcp(fmt.Sprintf("127.0.0.1:%d", i+1))); r.Errno != 0 {
			t.Fatalf("socket %d: %v", i, errno(r))
		}
	}
	if r := m.ask(1, tcp("127.0.0.1:50000")); errno(r) != syscall.EMFILE || r.Call != "socket" {
		t.Errorf("one too many: %v", errno(r))
	}
	if r := m.ask(1, Request{Name: "x", Wait: true}); errno(r) != syscall.EMFILE {
		t.Errorf("a wait too many: %v", errno(r))
	}
	if r := m.ask(2, tcp("127.0.0.1:50000")); r.Errno != 0 {
		t.Errorf("another worker: %v", errno(r))
	}
	m.do(m.s.closed(1, 1))
	if r := m.ask(1, tcp("127.0.0.1:50001")); r.Errno != 0 {
		t.Errorf("after a close: %v", errno(r))
	}
}
