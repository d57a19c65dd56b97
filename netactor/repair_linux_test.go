package netactor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// shutDown shuts the socket of a listener down, as code of a worker that has the socket can.
func (tr *tree) shutDown(number uint64) {
	tr.t.Helper()
	fd := -1
	until(tr.t, "the socket to listen", func() bool {
		tr.quiet()
		inspect.LookAt(tr.table, func(v inspect.TableView) {
			s, ok := socketOf(v, number, 0)
			if !ok || !s.Listening() {
				return
			}
			var err error
			if fd, err = unix.FcntlInt(uintptr(s.FD), unix.F_DUPFD_CLOEXEC, 0); err != nil {
				tr.t.Error(err)
			}
		})
		return fd >= 0
	})
	defer unix.Close(fd)
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		tr.t.Fatalf("shutdown of descriptor %d: %v", fd, err)
	}
	// Most often before the socket listens again, so that it would pass on to what it accepts that
	// it is shut down.
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
}

// socketOf returns one of the sockets that the master holds; none while it is at work.
func socketOf(v inspect.TableView, number uint64, index int) (inspect.SocketView, bool) {
	i := slices.IndexFunc(v.Sockets, func(s inspect.SocketView) bool { return s.Number == number && s.Index == index })
	if i < 0 {
		return inspect.SocketView{}, false
	}
	return v.Sockets[i], true
}

// look returns what the master has at the moment.
func (tr *tree) look() (v inspect.TableView) {
	inspect.LookAt(tr.table, func(now inspect.TableView) { v = now })
	return v
}

// quiet waits until the master has done all there is to do.
func (tr *tree) quiet() {
	until(tr.t, "the master to have done it", func() bool { return !tr.look().Busy })
}

// A worker that has a listening socket can shut it down for all. The master notices, whether or not
// a worker accepts, and listens again at the same address; each worker that had the socket serves
// on.
func TestShutDownSocket(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.Shared, netactor.ReusePort} {
		for _, r := range []netactor.Request{loopback, {Network: "unix", Address: "s"}} {
			if p == netactor.ReusePort && r.Network == "unix" {
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
				tr.shutDown(1) // no worker accepts: the master alone can notice
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
					tr.shutDown(1)
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

// The records of repairs end with the socket: a worker that has many sockets repaired, one after
// the other, leaves nothing behind.
func TestRepairsForgotten(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	for range 20 {
		ln := w.mustListen(loopback)
		_ = w.master[1].TrySend(&fdipc.Frame{Kind: wire.KindBroken, Target: tr.table.Sockets()[0].Number})
		ln.Close()
		until(t, "the socket to be closed", func() bool { return len(tr.table.Sockets()) == 0 })
	}
	tr.quiet()
	if n := tr.look().Repairs; n > 0 {
		t.Errorf("%d are remembered", n)
	}
}

// Pause and resume also hold for workers that accept for themselves, and for workers that start
// while the listener is paused.
func TestPauseOwn(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := loopback
			r.Policy = p
			ln := tr.worker(0).mustListen(r)
			addr := ln.Addr().String()
			go serveID(ln, "a")
			ask(t, "tcp", addr)
			if !tr.table.Pause(1) || !tr.table.Sockets()[0].Paused {
				t.Fatal("not paused")
			}
			until(t, "the pause", func() bool { return inspect.Paused(tr.workers[1].ls, 1) })
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

// backlog returns how many connections wait in the backlogs of a listener.
func (tr *tree) backlog(number uint64) (n int) {
	tr.quiet()
	inspect.LookAt(tr.table, func(v inspect.TableView) {
		for _, s := range v.Sockets {
			if ti, err := unix.GetsockoptTCPInfo(s.FD, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && s.Number == number {
				n += int(ti.Unacked)
			}
		}
	})
	return n
}

// Each worker has its own socket, which the master also holds: the replacement of a killed worker
// serves the connections in the worker's backlog, and no client is refused.
func TestReusePortDeath(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy = netactor.ReusePort
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

// A worker that is not replaced takes its socket along, unless it is the last one: then the socket
// waits for the next worker.
func TestReusePortRetire(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy, r.Name = netactor.ReusePort, "http"
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
		go serveID(w.mustListen(netactor.Request{Name: "http"}), fmt.Sprint(i))
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
		if s := ask(t, "tcp", addr.String()); s != "2" {
			t.Fatalf("answer of %q", s)
		}
	}
	workers[2].gone(true)
	answer := make(chan string, 1)
	go func() {
		s, err := tryAsk("tcp", addr.String())
		answer <- fmt.Sprint(s, err)
	}()
	go serveID(tr.worker(7).mustListen(netactor.Request{Name: "http"}), "7")
	if s := <-answer; s != "7<nil>" {
		t.Errorf("answer %q", s)
	}
}

// Two clusters do not share a port by accident, also under ReusePort; and another program cannot
// take the address of a member.
func TestReusePortTaken(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy = netactor.ReusePort
	addr := tr.worker(0).mustListen(r).Addr().String()
	for _, p := range []netactor.Policy{netactor.ReusePort, netactor.RoundRobin} {
		if _, err := socket.Open(socket.SocketSpec{Request: netactor.Request{Network: "tcp4", Address: addr, Policy: p}}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v: %v", p, err)
		}
	}
}

// A request by name alone can wait until a socket has that name. The wait ends with the request,
// with its context, and with its pool.
func TestListenWaits(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		r := netactor.Request{Name: "late", Wait: true}
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
		waits := func() int { return tr.look().Awaiting }
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
			_, err := given.listen(netactor.Request{Name: "never", Wait: true})
			ended <- err
		}()
		until(t, "one to wait", func() bool { return waits() == 1 })
		tr.table.StopOwner("web")
		if err := <-ended; !errors.Is(err, syscall.ECANCELED) {
			t.Error(err)
		}
	})
}
