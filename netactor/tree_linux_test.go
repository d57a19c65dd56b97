package netactor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/internal/wire"
	"github.com/coppice-go/coppice/netactor/listen"
)

var loopback = netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}

// joined waits until n workers take part in the only listener.
func (tr *tree) joined(n int) {
	tr.t.Helper()
	until(tr.t, fmt.Sprintf("%d workers to join", n), func() bool {
		k := 0
		for _, w := range tr.stats().Workers {
			if w.Joined {
				k++
			}
		}
		return k == n
	})
}

// settled waits until the dispatcher has no connections, and checks that the counts balance.
func (tr *tree) settled(claimed int) netactor.ListenerStats {
	tr.t.Helper()
	until(tr.t, fmt.Sprintf("%d claims", claimed), func() bool {
		c := tr.stats().Counts
		return c.Claimed == uint64(claimed) && c.Waiting+c.Offered == 0
	})
	st := tr.stats()
	if !st.Counts.Balanced() {
		tr.t.Errorf("counts do not balance: %+v", st.Counts)
	}
	for _, w := range st.Workers {
		if !w.Counts.Balanced() {
			tr.t.Errorf("counts of %s do not balance: %+v", w.Worker.Name, w.Counts)
		}
	}
	return st
}

func TestRoundRobinIsCyclic(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		const workers, rounds = 3, 300
		var addr string
		for i := range workers {
			ln := tr.worker(i).mustListen(loopback)
			if addr == "" {
				addr = ln.Addr().String()
			} else if addr != ln.Addr().String() {
				t.Fatalf("port 0 gave %s, then %s", addr, ln.Addr())
			}
			go serveID(ln, fmt.Sprint(i))
		}
		tr.joined(workers)
		var got [workers]int
		for range rounds {
			var i int
			_, _ = fmt.Sscan(ask(t, "tcp", addr), &i)
			got[i]++
		}
		for _, n := range got {
			if n != rounds/workers {
				t.Fatalf("shares %v", got)
			}
		}
		if st := tr.settled(rounds); st.Jain() != 1 {
			t.Errorf("Jain's index %v", st.Jain())
		}
	})
}

// Connections are never dropped for want of a worker: not before the first
// joins, not when the last one dies (X3).
func TestNobodyThereX3(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		w := tr.worker(0)
		addr := w.mustListen(loopback).Addr().String()
		tr.joined(1)
		w.kill()
		answers := make(chan string, 8)
		for range cap(answers) {
			go func() {
				s, err := tryAsk("tcp", addr)
				answers <- fmt.Sprint(s, err)
			}()
		}
		go serveID(tr.worker(0).mustListen(loopback2(addr)), "ok")
		for range cap(answers) {
			if s := <-answers; s != "ok<nil>" {
				t.Errorf("answer %q", s)
			}
		}
		tr.settled(cap(answers))
	})
}

func loopback2(addr string) netactor.Request { return netactor.Request{Network: "tcp", Address: addr} }

// X1: a connection that a worker was offered and had not accepted when it died is served by another
// worker, once.
func TestDeathWithUnclaimedX1(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		a, b := tr.worker(0), tr.worker(1)
		addr := a.mustListen(loopback).Addr().String() // never accepts
		ln := b.mustListen(loopback2(addr))
		tr.joined(2)
		const n = 20
		answers := make(chan string, n)
		var dialled sync.WaitGroup
		for range n {
			dialled.Add(1)
			go func() {
				c, err := net.Dial("tcp", addr)
				dialled.Done()
				if err != nil {
					answers <- err.Error()
					return
				}
				defer c.Close()
				c.SetDeadline(time.Now().Add(deadline))
				s, err := io.ReadAll(c)
				answers <- fmt.Sprint(string(s), err)
			}()
		}
		dialled.Wait()
		until(t, "offers to both", func() bool { return tr.stats().Counts.Accepted == n })
		a.kill()
		go serveID(ln, "b")
		for range n {
			if s := <-answers; s != "b<nil>" {
				t.Errorf("answer %q", s)
			}
		}
		st := tr.settled(n)
		if st.Gone.Returned+st.Gone.Refused+st.Gone.Unsent != n/2 || st.Gone.Died != 0 {
			t.Errorf("counts of the dead worker: %+v", st.Gone)
		}
	})
}

// A connection that a stalled worker does not claim in time goes to another worker, and the stalled
// one is suspended; when it runs again it serves no connection that it lost.
func TestStalledWorker(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem, func(tr *tree) { tr.claim = 30 * time.Millisecond })
		a, b := tr.worker(0), tr.worker(1)
		lna := a.mustListen(loopback)
		addr := lna.Addr().String()
		go serveID(b.mustListen(loopback2(addr)), "b")
		tr.joined(2)
		for range 10 {
			if s := ask(t, "tcp", addr); s != "b" {
				t.Fatalf("answer %q", s)
			}
		}
		st := tr.settled(10)
		var returned uint64
		for _, w := range st.Workers {
			if w.Worker.ID == a.ID {
				returned = w.Counts.Returned
			}
		}
		if returned == 0 {
			t.Error("the stalled worker was offered nothing")
		}
		go serveID(lna, "a") // it skips revoked connections
		until(t, "the worker to be used again", func() bool { return ask(t, "tcp", addr) == "a" })
	})
}

// TestDeadIsNotStalled: of a worker that dies with connections on offer the log does not say that
// it does not take them.
func TestDeadIsNotStalled(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		var log lines
		tr := newTree(t, mem, func(tr *tree) { tr.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		a := tr.worker(0)
		addr := a.mustListen(loopback).Addr().String()
		tr.joined(1)
		for range 3 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
		until(t, "they are on offer", func() bool { return tr.stats().Counts.Offered == 3 })
		tr.disp.RemoveWorker(a.ID) // it is reaped
		until(t, "they come back", func() bool { return tr.stats().Counts.Waiting == 3 })
		a.kill()
		go serveID(tr.worker(1).mustListen(loopback2(addr)), "b")
		until(t, "they are claimed", func() bool { return tr.stats().Counts.Claimed == 3 })
		if n := log.count("stalled"); n > 0 {
			t.Errorf("%d lines say that it is stalled", n)
		}
	})
}

// N76, X2: a worker that refuses is passed over; the connection is served.
func TestRefusal(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		a, b := tr.worker(0), tr.worker(1)
		lna := a.mustListen(loopback)
		addr := lna.Addr().String()
		go serveID(b.mustListen(loopback2(addr)), "b")
		tr.joined(2)
		// a no longer knows the listener, and has not reported it.
		restore := inspect.Hide(a.ls, 1)
		for range 6 {
			if s := ask(t, "tcp", addr); s != "b" {
				t.Fatalf("answer %q", s)
			}
		}
		tr.settled(6)
		tr.joined(1)
		restore()
	})
}

// Closing a listener gives its unaccepted connections to other workers; their socket stays open.
// Accept and a second Close return net.ErrClosed.
func TestListenerClose(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		a, b := tr.worker(0), tr.worker(1)
		lna := a.mustListen(loopback)
		addr := lna.Addr().String()
		lnb := b.mustListen(loopback2(addr))
		tr.joined(2)
		answers := make(chan string, 10)
		for range cap(answers) {
			go func() {
				s, err := tryAsk("tcp", addr)
				answers <- fmt.Sprint(s, err)
			}()
		}
		until(t, "offers", func() bool { return tr.stats().Counts.Offered == cap(answers) })
		accepted := make(chan error, 1)
		lna2 := lna
		if err := lna.Close(); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := lna2.Accept()
			accepted <- err
		}()
		if err := <-accepted; !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		if err := lna.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v", err)
		}
		go serveID(lnb, "b")
		for range cap(answers) {
			if s := <-answers; s != "b<nil>" {
				t.Errorf("answer %q", s)
			}
		}
		tr.settled(cap(answers))
	})
}

// N8, N57, N58, N87: close and listen again, in one worker and in others, over
// and over: no index leaks, no port stays taken.
func TestListenAgainN87(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		a, b := tr.worker(0), tr.worker(1)
		first := a.mustListen(loopback)
		addr := first.Addr().String()
		for i := range 20 {
			if _, err := a.listen(loopback2(addr)); !errors.Is(err, syscall.EADDRINUSE) {
				t.Fatalf("round %d: twice in one worker: %v", i, err)
			}
			other := b.mustListen(loopback2(addr))
			first.Close()
			if i%2 == 0 {
				other.Close()
			}
			first = a.mustListen(loopback2(addr))
			if i%2 == 1 {
				other.Close()
			}
			if got := first.Addr().String(); got != addr {
				t.Fatalf("round %d: %s, want %s", i, got, addr)
			}
		}
		go serveID(first, "a")
		if s := ask(t, "tcp", addr); s != "a" {
			t.Errorf("answer %q", s)
		}
		first.Close()
		until(t, "the socket to be closed", func() bool { return connects2(addr) != nil })
	})
}

func connects2(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err
}

// N5, N27, N33: a port that another process has is EADDRINUSE in the worker, as from net.Listen;
// when it is free again, so is the address.
func TestListenErrorN27(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, want := net.Listen("tcp", taken.Addr().String())
	_, got := w.listen(loopback2(taken.Addr().String()))
	if got == nil || got.Error() != want.Error() || !errors.Is(got, syscall.EADDRINUSE) {
		t.Errorf("got %v, net.Listen %v", got, want)
	}
	op, ok := errors.AsType[*net.OpError](got)
	if !ok || op.Addr.String() != taken.Addr().String() {
		t.Errorf("%#v", got)
	}
	taken.Close()
	if _, err := w.listen(loopback2(taken.Addr().String())); err != nil {
		t.Errorf("freed: %v", err)
	}
	if _, err := w.listen(netactor.Request{FD: 1 << 19}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("no such descriptor: %v", err)
	}
	if _, err := w.listen(netactor.Request{Name: "nobody"}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no such name: %v", err)
	}
}

// N104: a listener that no worker wants any more is closed, also at the master.
func TestListenGivenUpN104(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		w := tr.worker(0)
		for range 50 {
			ctx, cancel := context.WithCancel(context.Background())
			go cancel()
			if ln, err := w.ls.Listen(ctx, loopback); err == nil {
				ln.Close()
			} else if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		until(t, "all sockets to be closed", func() bool { return len(tr.table.Sockets()) == 0 })
	})
}

// Pause leaves connections in the backlog; Resume takes them.
func TestPause(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	ln := w.mustListen(loopback)
	addr := ln.Addr().String()
	go serveID(ln, "a")
	tr.joined(1)
	if tr.table.Pause(99) {
		t.Error("paused what is not there")
	}
	if !tr.table.Pause(1) {
		t.Fatal("not paused")
	}
	until(t, "the pause", func() bool { return tr.stats().Paused })
	answer := make(chan string, 1)
	go func() {
		s, err := tryAsk("tcp", addr)
		answer <- fmt.Sprint(s, err)
	}()
	// A new listener process keeps the pause.
	tr.killListener()
	tr.startListener()
	tr.joined(1)
	until(t, "the pause", func() bool { return tr.stats().Paused })
	select {
	case s := <-answer:
		t.Fatalf("answered %q while paused", s)
	default:
	}
	if n := tr.stats().Counts.Accepted; n != 0 {
		t.Errorf("accepted %d while paused", n)
	}
	tr.table.Resume(1)
	if s := <-answer; s != "a<nil>" {
		t.Errorf("answer %q", s)
	}
}

// X9: with every worker at its limit nothing is accepted, and the accept loop does not run: the
// connections wait in the backlog.
func TestLimitX9(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	r := loopback
	r.Limits = netactor.Limits{PerWorker: 2}
	ln := w.mustListen(r)
	tr.joined(1)
	held := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			held <- c
		}
	}()
	for range 5 {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	x, y := <-held, <-held
	tr.settled(2)
	tr.parked()
	if n := tr.stats().Counts.Accepted; n != 2 {
		t.Fatalf("accepted %d at a limit of 2", n)
	}
	x.Close()
	z := <-held
	tr.settled(3)
	y.Close()
	z.Close()
	for range 2 {
		(<-held).Close()
	}
	tr.settled(5)
	until(t, "all ends to be reported", func() bool { return tr.stats().Workers[0].Counts.Finished == 5 })
}

// Issue 7, 5b: the death of the listener process leaves the backlog, the connections in workers'
// queues, and those that are being served.
func TestListenerProcessRestart(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		w := tr.worker(0)
		ln := w.mustListen(loopback)
		addr := ln.Addr().String()
		tr.joined(1)
		first, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		tr.settled(1)
		tr.killListener()
		if n := w.ls.Conns(); n != 1 {
			t.Errorf("%d connections", n)
		}
		answer := make(chan string, 1)
		go func() {
			s, err := tryAsk("tcp", addr)
			answer <- fmt.Sprint(s, err)
		}()
		tr.startListener()
		tr.joined(1)
		if st := tr.stats(); st.Counts.Claimed != 0 {
			t.Errorf("the new listener process knows of %d claims", st.Counts.Claimed)
		}
		go serveID(ln, "a")
		if s := <-answer; s != "a<nil>" {
			t.Errorf("answer %q", s)
		}
		// The connection that is older than the listener process is counted to its end.
		load := func() int {
			tr.stats() // reads the worker's page
			a, _ := inspect.Listener(tr.disp, 1)
			return a.Load
		}
		until(t, "the load to be 1", func() bool { return load() == 1 })
		s.Close()
		until(t, "the load to be 0", func() bool { return load() == 0 })
		tr.settled(1)
	})
}

// A new listener process tells the master its counts, also if all workers joined before it got the
// sockets and nothing happens from then on.
func TestCountsOfNewListenerProcess(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	w.mustListen(loopback)
	tr.joined(1)
	tr.killListener()
	_, before := tr.table.LastStats()
	tr.linkListener()
	until(t, "the answer to its join", func() bool { return w.link[1].Stats().FramesReceived > 0 })
	tr.table.Attach(tr.up[0])
	until(t, "the counts of the new listener process", func() bool {
		now, at := tr.table.LastStats()
		return at.After(before) && len(now) == 1 && len(now[0].Workers) == 1 && now[0].Workers[0].Joined
	})
}

// The link between a worker and the listener process breaks while both live. Over another link the
// worker takes part again, and its open connections are counted to their end, whether they end
// between the two links or later.
func TestLinkMadeAnew(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.LeastLoaded} { // with the worker's page, and with its reports
			t.Run(p.String(), func(t *testing.T) {
				tr := newTree(t, mem)
				w := tr.worker(0)
				r := loopback
				r.Policy = p
				ln := w.mustListen(r)
				held := hold(ln)
				tr.joined(1)
				var conns []net.Conn
				for range 4 {
					dial(t, ln.Addr())
					conns = append(conns, <-held)
				}
				tr.settled(4)
				load := func(n int) {
					t.Helper()
					until(t, fmt.Sprint("the load to be ", n), func() bool {
						tr.stats() // reads the worker's page
						a, ok := inspect.Listener(tr.disp, 1)
						return ok && a.Load == n
					})
				}
				conns[0].Close()
				load(3)
				old := w.link
				for _, c := range old {
					c.Close()
					<-c.Done()
				}
				tr.disp.RemoveLink(w.ID, old[0])
				if st := tr.stats(); st.Workers[0].Joined {
					t.Error("it takes part without a link")
				}
				conns[1].Close()
				answered := make(chan net.Conn)
				go func() { answered <- dial(t, ln.Addr()) }() // waits for it
				w.connect()
				conns = append(conns, <-held)
				<-answered
				load(3)
				tr.disp.RemoveLink(w.ID, old[0]) // late news
				for _, c := range conns[2:] {
					c.Close()
				}
				load(0)
				if c := tr.settled(5).Workers[0].Counts; c.Open() != 0 || c.Inherited != 0 || c.Finished != 5 {
					t.Errorf("%+v", c)
				}
			})
		}
	})
}

// Shutdown serves what is in the backlog, then closes the socket.
func TestShutdownDrainsBacklog(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		w := tr.worker(0)
		r := loopback
		r.Limits = netactor.Limits{Window: 1}
		ln := w.mustListen(r)
		tr.joined(1)
		const n = 10
		var clients []net.Conn
		for range n {
			c, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients = append(clients, c)
		}
		down := make(chan error, 1)
		go func() { down <- tr.disp.Shutdown(testContext(t)) }()
		go serveID(ln, "a")
		for _, c := range clients {
			c.SetDeadline(time.Now().Add(deadline))
			if b, err := io.ReadAll(c); string(b) != "a" || err != nil {
				t.Errorf("answer %q, %v", b, err)
			}
		}
		if err := <-down; err != nil {
			t.Error(err)
		}
	})
}

// Shutdown does not wait beyond its context; it closes the remaining connections.
func TestShutdownEnds(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	ln := w.mustListen(loopback) // never accepts
	tr.joined(1)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, "the offer", func() bool { return tr.stats().Counts.Offered == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tr.disp.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	ln.Close() // gives the connection back: no worker takes it
	c.SetDeadline(time.Now().Add(deadline))
	if b, err := io.ReadAll(c); len(b) > 0 || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%q, %v", b, err)
	}
}

// Shared: each worker accepts on the one socket.
func TestShared(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		r := loopback
		r.Policy = netactor.Shared
		a, b := tr.worker(0), tr.worker(1)
		lna := a.mustListen(r)
		addr := lna.Addr().String()
		lnb := b.mustListen(r)
		if lnb.Addr().String() != addr {
			t.Fatalf("%s and %s", addr, lnb.Addr())
		}
		go serveID(lna, "a")
		if s := ask(t, "tcp", addr); s != "a" {
			t.Errorf("answer %q", s)
		}
		a.kill()
		lna.Close()
		go serveID(lnb, "b")
		if s := ask(t, "tcp", addr); s != "b" {
			t.Errorf("answer %q", s)
		}
		if n := len(tr.disp.Stats()); n != 0 {
			t.Errorf("the dispatcher has %d listeners", n)
		}
		lnb.Close()
		if n := len(tr.table.Sockets()); n != 1 {
			t.Errorf("%d sockets while one worker's replacement is to come", n)
		}
		tr.table.StopOwner("web")
		until(t, "the socket to be closed", func() bool { return connects2(addr) != nil })
	})
}

// Item 3f: a worker opens a listener itself and sends it to the master, which gives it to a
// sibling.
func TestShare(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		a, b := tr.worker(0), tr.worker(1)
		raw, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := raw.Addr().String()
		lna, err := a.ls.Share(testContext(t), netactor.Request{Name: "mine"}, raw)
		if err != nil {
			t.Fatal(err)
		}
		lnb := b.mustListen(netactor.Request{Name: "mine"})
		if lna.Addr().String() != addr || lnb.Addr().String() != addr {
			t.Fatalf("%s and %s, want %s", lna.Addr(), lnb.Addr(), addr)
		}
		tr.joined(2)
		go serveID(lna, "a")
		go serveID(lnb, "b")
		got := ask(t, "tcp", addr) + ask(t, "tcp", addr)
		if got != "ab" && got != "ba" {
			t.Errorf("answers %q", got)
		}
		second, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.ls.Share(testContext(t), netactor.Request{Name: "mine"}, second); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("a taken name: %v", err)
		}
		until(t, "the refused socket to be closed", func() bool { return connects2(second.Addr().String()) != nil })
	})
}

func TestShareUnix(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	path := filepath.Join(t.TempDir(), "s")
	raw, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := w.ls.Share(testContext(t), netactor.Request{Name: "u"}, raw)
	if err != nil {
		t.Fatal(err)
	}
	go serveID(ln, "u")
	if s := ask(t, "unix", path); s != "u" {
		t.Errorf("answer %q", s)
	}
	ln.Close()
	until(t, "the path to be removed", func() bool { _, err := tryAsk("unix", path); return errors.Is(err, syscall.ENOENT) })
}

// Edge case of item 3d: a listener that the worker opens itself. It asks no other process, and the
// listener is drained with the worker.
func TestAdopt(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln := w.ls.Adopt(raw)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if n := w.ls.Conns(); n != 1 || len(tr.table.Sockets()) != 0 {
		t.Errorf("%d connections, %d sockets at the master", n, len(tr.table.Sockets()))
	}
	drained := make(chan error, 1)
	go func() { drained <- w.ls.Drain(testContext(t)) }()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	select {
	case err := <-drained:
		t.Fatalf("drained (%v) with a connection open", err)
	default:
	}
	s.Close()
	s.Close() // counts once
	if err := <-drained; err != nil {
		t.Error(err)
	}
	c.Close()
	if n := w.ls.Conns(); n != 0 {
		t.Errorf("%d connections", n)
	}
	if _, err := w.listen(loopback); err == nil {
		t.Error("listened after the drain")
	}
}

// Without a master Listen is net.Listen.
func TestAlone(t *testing.T) {
	checkLeaks(t)
	ls := listen.New(listen.Config{Logger: quiet})
	ln, err := ls.Listen(testContext(t), loopback)
	if err != nil {
		t.Fatal(err)
	}
	go serveID(ln, "x")
	if s := ask(t, "tcp", ln.Addr().String()); s != "x" {
		t.Errorf("answer %q", s)
	}
	if _, err := ls.Listen(testContext(t), loopback2(ln.Addr().String())); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%v", err)
	}
	if err := ls.Drain(testContext(t)); err != nil {
		t.Error(err)
	}
}

// A pool that stops closes the listeners of workers that still live.
func TestOwnerStops(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		ln := tr.worker(0).mustListen(loopback)
		tr.joined(1)
		tr.table.StopOwner("web")
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept: %v", err)
		}
		until(t, "the port to be free", func() bool { return connects2(ln.Addr().String()) != nil })
	})
}

// A listener spec holds its socket without any worker; a worker gets it by name.
func TestSpec(t *testing.T) {
	tr := newTree(t, true)
	r := loopback
	r.Name = "http"
	addr, err := tr.table.Open(testContext(t), "listener/http", r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.table.Open(testContext(t), "listener/again", loopback2("bad")); err == nil {
		t.Error("a bad address opened")
	}
	if _, err := tr.table.Open(testContext(t), "listener/again", loopback2(addr.String()+"x")); err == nil {
		t.Error("a bad port opened")
	}
	answer := make(chan string, 1)
	go func() {
		s, err := tryAsk("tcp", addr.String())
		answer <- fmt.Sprint(s, err)
	}()
	ln := tr.worker(0).mustListen(netactor.Request{Name: "http"})
	go serveID(ln, "a")
	if s := <-answer; s != "a<nil>" {
		t.Errorf("answer %q", s)
	}
	st, err := tr.table.Stats(testContext(t))
	if err != nil || len(st) != 1 || st[0].Name != "http" || st[0].Counts.Accepted != 1 {
		t.Errorf("stats %+v, %v", st, err)
	}
	if s := tr.table.Sockets(); len(s) != 1 || s[0].Name != "http" || strings.Join(s[0].Owners, ",") != "listener/http,web" {
		t.Errorf("sockets %+v", s)
	}
}

// N31: HTTP over a Unix socket; and over TCP with keep-alive, with a graceful
// shutdown of net/http on our listener.
func TestHTTP(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		for _, r := range []netactor.Request{loopback, {Network: "unix", Address: filepath.Join(t.TempDir(), "h")}} {
			ln := tr.worker(0).mustListen(r)
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(w, r.Body)
			})}
			done := make(chan error, 1)
			go func() { done <- srv.Serve(ln) }()
			client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, ln.Addr().Network(), ln.Addr().String())
			}}}
			for range 3 {
				big := strings.Repeat("x", 300_000)
				resp, err := client.Post("http://x/", "text/plain", strings.NewReader(big))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || string(b) != big {
					t.Fatalf("%d bytes, %v", len(b), err)
				}
			}
			client.CloseIdleConnections()
			if err := srv.Shutdown(testContext(t)); err != nil {
				t.Error(err)
			}
			if err := <-done; err != http.ErrServerClosed {
				t.Error(err)
			}
		}
	})
}

// LeastLoaded counts closed connections as ended.
func TestLeastLoaded(t *testing.T) {
	tr := newTree(t, true)
	r := loopback
	r.Policy = netactor.LeastLoaded
	a, b := tr.worker(0), tr.worker(1)
	lna := a.mustListen(r)
	lnb := b.mustListen(r)
	tr.joined(2)
	type got struct {
		who string
		c   net.Conn
	}
	conns := make(chan got)
	for who, ln := range map[string]net.Listener{"a": lna, "b": lnb} {
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				conns <- got{who, c}
			}
		}()
	}
	dial := func() got {
		c, err := net.Dial("tcp", lna.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return <-conns
	}
	held := map[string][]net.Conn{}
	for range 6 {
		g := dial()
		held[g.who] = append(held[g.who], g.c)
	}
	if len(held["a"]) != 3 || len(held["b"]) != 3 {
		t.Fatalf("%d and %d", len(held["a"]), len(held["b"]))
	}
	for _, c := range held["b"] {
		c.Close()
	}
	until(t, "the ends to be known", func() bool {
		for _, w := range tr.stats().Workers {
			if w.Worker.ID == b.ID {
				return w.Counts.Finished == 3
			}
		}
		return false
	})
	for range 3 {
		g := dial()
		if g.who != "b" {
			t.Error("offered to the one with more")
		}
		defer g.c.Close()
	}
	for _, c := range held["a"] {
		c.Close()
	}
}

// EMFILE: the accept loop backs off and loses nothing.
func TestExhausted(t *testing.T) {
	tr := newTree(t, true, func(tr *tree) { tr.hooks.Accept = failFirst(3) })
	w := tr.worker(0)
	ln := w.mustListen(loopback)
	tr.joined(1)
	go serveID(ln, "a")
	for range 3 {
		if s := ask(t, "tcp", ln.Addr().String()); s != "a" {
			t.Fatalf("answer %q", s)
		}
	}
	st := tr.settled(3)
	if st.Counts.Exhausted != 3 {
		t.Errorf("%+v", st.Counts)
	}
}

// N32: invalid frames, and frames from the wrong sender, change nothing.
func TestForgedFramesN32(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		w := tr.worker(0)
		ln := w.mustListen(loopback)
		go serveID(ln, "a")
		tr.joined(1)
		for k := range 16 {
			for _, payload := range [][]byte{nil, []byte("{"), wire.Count(1 << 62), []byte(`{"Number":1}`)} {
				for _, c := range []*fdipc.Conn{w.master[1], w.link[1], w.link[0], tr.up[1]} {
					kind := wire.KindListen + fdipc.Kind(k)
					if kind == wire.KindClosed || kind == wire.KindLeave || kind == wire.KindShut || kind == wire.KindShutAck || kind == wire.KindDone {
						continue // it may send these
					}
					f := &fdipc.Frame{Kind: kind, Target: 77, Payload: payload}
					if c == w.link[1] {
						h, err := net.Listen("tcp", "127.0.0.1:0")
						if err != nil {
							t.Fatal(err)
						}
						f.Handles = []*fdipc.Handle{handleOf(t, h)}
					}
					if err := c.Send(testContext(t), f); err != nil {
						t.Fatalf("kind %#x: %v", kind, err)
					}
				}
			}
		}
		for range 3 {
			if s := ask(t, "tcp", ln.Addr().String()); s != "a" {
				t.Fatalf("answer %q", s)
			}
		}
	})
}

// failFirst makes the first n calls of accept4 fail for want of descriptors.
func failFirst(n int) func(next func() (int, error)) (int, error) {
	return func(next func() (int, error)) (int, error) {
		if n > 0 {
			n--
			return -1, unix.EMFILE
		}
		return next()
	}
}
