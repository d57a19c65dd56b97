package netactor_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
)

// counting counts the accept4 calls of a socket.
func counting(n *atomic.Int64) func(next func() (int, error)) (int, error) {
	return func(next func() (int, error)) (int, error) {
		n.Add(1)
		return next()
	}
}

// parked waits until the accept loop of the only listener waits for a change.
func (tr *tree) parked() {
	tr.t.Helper()
	until(tr.t, "the accept loop to wait", func() bool {
		a, ok := inspect.Listener(tr.disp, 1)
		return ok && a.Parked
	})
}

// X9 in system calls: at the limit the backlog grows, and the acceptor does not call accept4. Each
// connection that ends causes one call, for one connection.
func TestLimitDoesNotSpinX9(t *testing.T) {
	var calls atomic.Int64
	tr := newTree(t, false, func(tr *tree) { tr.hooks.Accept = counting(&calls) })
	r := loopback
	r.Limits = netactor.Limits{PerWorker: 2}
	ln := tr.worker(0).mustListen(r)
	tr.joined(1)
	held := hold(ln)
	for range 2 {
		dial(t, ln.Addr())
	}
	x, y := <-held, <-held
	tr.settled(2)
	dial(t, ln.Addr()) // wakes the loop, which finds no room
	tr.parked()
	before := calls.Load()
	for range 50 {
		dial(t, ln.Addr())
	}
	tr.parked()
	if n := calls.Load() - before; n != 0 {
		t.Errorf("%d calls of accept4 at the limit", n)
	}
	const ends = 20
	for range ends {
		x.Close()
		x, y = y, <-held
	}
	tr.settled(2 + ends)
	tr.parked()
	if n := calls.Load() - before; n != ends {
		t.Errorf("%d calls of accept4 for %d connections that ended", n, ends)
	}
	x.Close()
	y.Close()
	for range 51 - ends {
		(<-held).Close()
	}
	tr.settled(53)
}

// With no worker the acceptor accepts nothing and does not call accept4.
func TestNobodyThereDoesNotSpin(t *testing.T) {
	var calls atomic.Int64
	tr := newTree(t, false, func(tr *tree) { tr.hooks.Accept = counting(&calls) })
	addr, err := tr.table.Open(testContext(t), "listener/x", loopback)
	if err != nil {
		t.Fatal(err)
	}
	for range 30 {
		dial(t, addr)
	}
	tr.parked()
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls of accept4 without a worker", n)
	}
}

// accept4 fails in the listener process, for want of descriptors or by a policy: there is one call
// of accept4 for each time that the back-off ends, the back-off doubles, the connections wait, and
// none is lost.
func TestExhaustedDoesNotSpin(t *testing.T) {
	for _, e := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EACCES, unix.EPERM} {
		t.Run(unix.ErrnoName(e), func(t *testing.T) { testAcceptFails(t, e) })
	}
}

// testAcceptFails: while accept4 returns e the acceptor waits, longer each time. It logs one line
// when that begins, and one when it is over.
func testAcceptFails(t *testing.T, e unix.Errno) {
	var log lines
	var calls atomic.Int64
	var full atomic.Bool
	full.Store(true)
	fire, waits := make(chan time.Time), make(chan time.Duration, 100)
	tr := newTree(t, false, func(tr *tree) {
		tr.hooks.Accept = func(next func() (int, error)) (int, error) {
			calls.Add(1)
			if full.Load() {
				return -1, e
			}
			return next()
		}
		tr.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
		tr.hooks.After = func(d time.Duration) <-chan time.Time { waits <- d; return fire }
	})
	ln := tr.worker(0).mustListen(loopback)
	tr.joined(1)
	held := hold(ln)
	const n = 20
	for range n {
		dial(t, ln.Addr())
	}
	want := 5 * time.Millisecond
	for i := range 10 {
		if d := <-waits; d != want {
			t.Fatalf("waits %v, want %v", d, want)
		}
		if got := calls.Load(); got != int64(i+1) {
			t.Fatalf("%d calls of accept4 after %d back-offs", got, i)
		}
		want = min(2*want, time.Second)
		if i == 9 {
			full.Store(false)
		}
		fire <- time.Time{}
	}
	for range n {
		(<-held).Close()
	}
	if st := tr.settled(n); st.Counts.Exhausted+st.Counts.Errors != 10 || (st.Counts.Exhausted == 10) != (e == unix.EMFILE || e == unix.ENFILE || e == unix.ENOBUFS || e == unix.ENOMEM) {
		t.Errorf("%+v", st.Counts)
	}
	if n := log.count("cannot accept"); n != 1 || log.count(e.Error()) != 1 {
		t.Errorf("%d lines that it begins", n)
	}
	if n := log.count("accepts again"); n != 1 || log.count("failures=10") != 1 {
		t.Errorf("%d lines that it is over", n)
	}
}

// lines is the output of a logger.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), what)
}

// Accepting leaves some descriptors to control traffic: if their numbers are near the limit of the
// process, it waits after each connection.
func TestReservedDescriptors(t *testing.T) {
	fire := make(chan time.Time)
	var waits atomic.Int64
	tr := newTree(t, false, func(tr *tree) {
		tr.hooks.Reserve = true
		tr.hooks.After = func(time.Duration) <-chan time.Time { waits.Add(1); return fire }
	})
	ln := tr.worker(0).mustListen(loopback)
	tr.joined(1)
	held := hold(ln)
	for range 3 {
		dial(t, ln.Addr())
	}
	for closed := 0; closed < 3; {
		select {
		case c := <-held:
			c.Close()
			closed++
			if n, accepted := waits.Load(), int64(tr.stats().Counts.Accepted); n < accepted-1 {
				t.Errorf("%d connections accepted, with %d waits", accepted, n)
			}
		case fire <- time.Time{}: // the acceptor may also be woken, by a connection that is closed
		}
	}
	tr.settled(3)
}

// A dispatcher that has a successor ends while every worker is at its limit, and leaves the backlog
// to that one.
func TestRetireAtLimit(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Limits = netactor.Limits{PerWorker: 1}
	ln := tr.worker(0).mustListen(r)
	tr.joined(1)
	held := hold(ln)
	dial(t, ln.Addr())
	first := <-held
	tr.settled(1)
	waits := dial(t, ln.Addr())
	tr.parked()
	if err := tr.disp.Retire(testContext(t)); err != nil {
		t.Fatal(err)
	}
	tr.killListener()
	tr.startListener()
	tr.joined(1)
	first.Close()
	c := <-held
	defer c.Close()
	if c.RemoteAddr().String() != waits.LocalAddr().String() {
		t.Errorf("%v was served", c.RemoteAddr())
	}
}

// At a limit a connection is answered and closed, or closed, by AtLimit, and counted with the
// reason. The client gets the whole answer even if it has sent data first.
func TestTurnedAway(t *testing.T) {
	const answer = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	for _, tt := range []struct {
		name   string
		limits netactor.Limits
		want   string
		reason func(netactor.Counts) uint64
	}{
		{"answered at the limit per worker", netactor.Limits{PerWorker: 1, AtLimit: netactor.AnswerAtLimit, Answer: answer}, answer, func(c netactor.Counts) uint64 { return c.AtPerWorker }},
		{"answered at the limit over all workers", netactor.Limits{Total: 2, AtLimit: netactor.AnswerAtLimit, Answer: answer}, answer, func(c netactor.Counts) uint64 { return c.AtTotal }},
		{"closed", netactor.Limits{Total: 2, AtLimit: netactor.CloseAtLimit}, "", func(c netactor.Counts) uint64 { return c.AtTotal }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var calls atomic.Int64
			tr := newTree(t, false, func(tr *tree) { tr.hooks.Accept = counting(&calls) })
			r := loopback
			r.Limits = tt.limits
			a, b := tr.worker(0), tr.worker(1)
			ln := a.mustListen(r)
			held := [2]<-chan net.Conn{hold(ln), hold(b.mustListen(loopback2(ln.Addr().String())))}
			tr.joined(2)
			var first net.Conn
			for range 2 {
				dial(t, ln.Addr())
				select {
				case first = <-held[0]:
				case c := <-held[1]:
					defer c.Close()
				}
			}
			tr.settled(2)
			const n = 3 * 64 // above the bound of lingering connections
			for i := range n {
				c := dial(t, ln.Addr())
				if tt.want != "" {
					_, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\n", 1+i%100))
				}
				b, err := io.ReadAll(c)
				if string(b) != tt.want || tt.want != "" && err != nil {
					t.Fatalf("connection %d: %q, %v", i, b, err)
				}
				c.Close()
			}
			st := tr.settled(2)
			if got := tt.reason(st.Counts); got != n || st.Counts.TurnedAway() != n {
				t.Errorf("%+v", st.Counts)
			}
			if got := calls.Load(); got > 4*(n+2) {
				t.Errorf("%d calls of accept4 for %d connections", got, n+2)
			}
			first.Close()
			until(t, "room", func() bool {
				c := dial(t, ln.Addr())
				defer c.Close()
				select {
				case s := <-held[0]:
					s.Close()
					return true
				case s := <-held[1]: // on a busy machine its turn may have come first
					s.Close()
					return true
				case <-readable(c):
					return false
				}
			})
		})
	}
}

// readable is closed when c has something to read, or has ended.
func readable(c net.Conn) <-chan struct{} {
	ch := make(chan struct{})
	go func() {
		var b [1]byte
		_, _ = c.Read(b[:])
		close(ch)
	}()
	return ch
}

// The load that a worker reports decides under LeastLoaded, also at a new listener process.
func TestLoadReport(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tr := newTree(t, mem)
		r := loopback
		r.Policy = netactor.LeastLoaded
		a, b := tr.worker(0), tr.worker(1)
		ln := a.mustListen(r)
		go serveID(ln, "a")
		go serveID(b.mustListen(loopback2(ln.Addr().String())), "b")
		tr.joined(2)
		for range 2 {
			a.ls.Report(1000)
			b.ls.Report(5)
			until(t, "the reports", func() bool {
				w := tr.stats().Workers
				return len(w) == 2 && w[0].Load == 1000 && w[1].Load == 5
			})
			for range 50 {
				if s := ask(t, "tcp", ln.Addr().String()); s != "b" {
					t.Fatalf("answer of %q, which has more to do", s)
				}
			}
			tr.killListener()
			tr.startListener()
			tr.joined(2)
		}
		b.ls.Report(2000)
		until(t, "the report", func() bool { return tr.stats().Workers[1].Load == 2000 })
		if s := ask(t, "tcp", ln.Addr().String()); s != "a" {
			t.Errorf("answer of %q", s)
		}
	})
}

// A user's Picker runs where connections are accepted, and sees the workers. A Picker that panics
// is reported a bounded number of times, and service goes on.
func TestPicker(t *testing.T) {
	var lines atomic.Int64
	var broken atomic.Bool
	tr := newTree(t, false, func(tr *tree) {
		tr.cfg.Logger = slog.New(slog.NewTextHandler(writerFunc(func([]byte) { lines.Add(1) }), nil))
		tr.cfg.Functions = func(path string) netactor.Functions {
			if path != "front/http" {
				return netactor.Functions{}
			}
			return netactor.Functions{Picker: pickerFunc(func(peer netip.AddrPort, free []netactor.Load) int {
				if broken.Load() {
					panic("on purpose")
				}
				if !peer.Addr().IsLoopback() {
					return -1
				}
				for i, w := range free {
					if w.Worker.Slot == 1 {
						return i
					}
				}
				return 0
			})}
		}
	})
	r := loopback
	r.Policy, r.Functions = netactor.Custom, "front/http"
	ln := tr.worker(0).mustListen(r)
	addr := ln.Addr().String()
	go serveID(ln, "0")
	go serveID(tr.worker(1).mustListen(loopback2(addr)), "1")
	tr.joined(2)
	for range 20 {
		if s := ask(t, "tcp", addr); s != "1" {
			t.Fatalf("answer of %q", s)
		}
	}
	broken.Store(true)
	const n = 100
	for range n {
		ask(t, "tcp", addr)
	}
	if st := tr.settled(20 + n); st.Counts.Faults != n {
		t.Errorf("%+v", st.Counts)
	}
	if l := lines.Load(); l == 0 || l > 10 {
		t.Errorf("%d log lines", l)
	}
	broken.Store(false)
	if s := ask(t, "tcp", addr); s != "1" {
		t.Errorf("answer of %q after the faults", s)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// Hash by a function of the addresses sees both addresses.
func TestHashKey(t *testing.T) {
	seen := make(chan [2]netip.AddrPort, 100)
	tr := newTree(t, false, func(tr *tree) {
		tr.cfg.Functions = func(string) netactor.Functions {
			return netactor.Functions{Key: func(peer, local netip.AddrPort) uint64 { seen <- [2]netip.AddrPort{peer, local}; return 7 }}
		}
	})
	r := loopback
	r.Policy, r.Functions = netactor.Hash, "x"
	ln := tr.worker(0).mustListen(r)
	addr := ln.Addr().String()
	go serveID(ln, "0")
	go serveID(tr.worker(1).mustListen(loopback2(addr)), "1")
	tr.joined(2)
	home := ask(t, "tcp", addr)
	for range 10 {
		if s := ask(t, "tcp", addr); s != home {
			t.Fatalf("answer of %q, before of %q, with one key", s, home)
		}
	}
	if got := <-seen; got[1].String() != addr || got[0].Addr() != got[1].Addr() || got[0].Port() == 0 {
		t.Errorf("addresses %v", got)
	}
}

// Each hand-over is in the histogram of the listener and in that of its worker; and a waiting
// connection has an age.
func TestHandOverHistogram(t *testing.T) {
	tr := newTree(t, false)
	w := tr.worker(0)
	ln := w.mustListen(loopback)
	tr.joined(1)
	dial(t, ln.Addr())
	until(t, "an age", func() bool { st := tr.stats(); return len(st.Workers) == 1 && st.Workers[0].QueueAge > 0 })
	go serveID(ln, "a")
	const n = 20
	for range n {
		ask(t, "tcp", ln.Addr().String())
	}
	st := tr.settled(n + 1)
	until(t, "the worker's counts", func() bool { st = tr.stats(); return st.HandOver.Count() == n+1 })
	if q := st.HandOver.Quantile(0.5); q == 0 || q > time.Second || st.Workers[0].HandOver != st.HandOver || st.Workers[0].QueueAge != 0 {
		t.Errorf("median up to %v of %v", q, st.HandOver)
	}
	w.kill()
	tr.worker(0)
	if got := tr.stats().HandOver.Count(); got != n+1 {
		t.Errorf("%d hand-overs after the worker is gone", got)
	}
}
