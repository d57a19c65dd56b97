package hoststest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Net is a network in memory. Its addresses are the names of hosts. What is written between two
// hosts that cannot reach each other waits, as with TCP, and arrives when they can again; a
// connection that one side has given up by then ends at the other. All methods may be called
// concurrently.
type Net struct {
	mu        sync.Mutex
	random    *rand.Rand
	listeners map[string]*listener
	cut       map[[2]string]bool
	halves    map[*half]struct{}
	changed   *sync.Cond // a listener came, or hosts reach each other again
	delay     time.Duration
	chop      int
	limit     int
	dials     int
}

// inFlight is what a direction of a connection holds, in bytes; then Write waits.
const inFlight = 256 << 10

// NewNet makes a network without faults. What is random in it follows from the seed.
func NewNet(seed uint64) *Net {
	n := &Net{random: rand.New(rand.NewPCG(seed, 0)), listeners: make(map[string]*listener), cut: make(map[[2]string]bool), halves: make(map[*half]struct{})}
	n.changed = sync.NewCond(&n.mu)
	return n
}

// Cut has nothing pass between a and b until Heal.
func (n *Net) Cut(a, b string) { n.CutOneWay(a, b); n.CutOneWay(b, a) }

// CutOneWay has nothing pass from a host to another until Heal.
func (n *Net) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = true
}

// Isolate cuts a host off from all others until Heal.
func (n *Net) Isolate(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{host, ""}], n.cut[[2]string{"", host}] = true, true
}

// Heal ends each cut. What waited arrives.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
	n.wakeLocked()
}

// Reset breaks each connection between a and b, at both ends and even if they are cut off.
func (n *Net) Reset(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for h := range n.halves {
		if h.from == a && h.to == b || h.from == b && h.to == a {
			h.broken = true
		}
	}
	n.wakeLocked()
}

// Delay has each write arrive after a random time up to d, and not before those ahead of it on its
// connection; those of two connections overtake each other.
func (n *Net) Delay(d time.Duration) { n.set(func() { n.delay = d }) }

// Chop has a Read return a random number of bytes, at most most; zero is no limit.
func (n *Net) Chop(most int) { n.set(func() { n.chop = most }) }

// BreakAfter has each connection that is made from now on break, at both ends, when so many bytes
// have arrived in one of its directions; zero is never.
func (n *Net) BreakAfter(bytes int) { n.set(func() { n.limit = bytes }) }

func (n *Net) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// Conns returns how many connections have an end that is not closed.
func (n *Net) Conns() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return (len(n.halves) + 1) / 2
}

// Dials returns how many connections were asked for.
func (n *Net) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials
}

func (n *Net) wakeLocked() {
	n.changed.Broadcast()
	for h := range n.halves {
		h.changed.Broadcast()
	}
}

func (n *Net) reachLocked(from, to string) bool {
	return len(n.cut) == 0 || !n.cut[[2]string{from, to}] && !n.cut[[2]string{from, ""}] && !n.cut[[2]string{"", to}]
}

// Listen returns the listener of a host, which replaces an earlier one that was closed.
func (n *Net) Listen(host string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[host] != nil {
		panic("hoststest: " + host + " listens already")
	}
	l := &listener{net: n, host: host, changed: sync.NewCond(&n.mu)}
	n.listeners[host] = l
	n.changed.Broadcast()
	return l
}

// Dial connects a host to the one whose name is the address, which must listen. While they cannot
// reach each other it waits, until ctx ends.
func (n *Net) Dial(ctx context.Context, from, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	defer context.AfterFunc(ctx, func() { n.set(n.changed.Broadcast) })()
	for !n.reachLocked(from, address) || !n.reachLocked(address, from) {
		if ctx.Err() != nil {
			return nil, &net.OpError{Op: "dial", Net: "hoststest", Addr: addr(address), Err: ctx.Err()}
		}
		n.changed.Wait()
	}
	l := n.listeners[address]
	if l == nil || ctx.Err() != nil {
		return nil, &net.OpError{Op: "dial", Net: "hoststest", Addr: addr(address), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	there, back := n.newHalfLocked(from, address), n.newHalfLocked(address, from)
	there.other, back.other = back, there
	l.queue = append(l.queue, &conn{in: there, out: back})
	l.changed.Signal()
	return &conn{in: back, out: there}, nil
}

type addr string

func (addr) Network() string  { return "hoststest" }
func (a addr) String() string { return string(a) }

type listener struct {
	net     *Net
	host    string
	queue   []net.Conn
	closed  bool
	changed *sync.Cond
}

func (l *listener) Addr() net.Addr { return addr(l.host) }

func (l *listener) Accept() (net.Conn, error) {
	l.net.mu.Lock()
	defer l.net.mu.Unlock()
	for len(l.queue) == 0 && !l.closed {
		l.changed.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "hoststest", Addr: l.Addr(), Err: net.ErrClosed}
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

func (l *listener) Close() error {
	l.net.mu.Lock()
	if l.closed {
		l.net.mu.Unlock()
		return net.ErrClosed
	}
	l.closed = true
	delete(l.net.listeners, l.host)
	queue := l.queue
	l.changed.Broadcast()
	l.net.mu.Unlock()
	for _, c := range queue {
		c.Close()
	}
	return nil
}

// half is one direction of a connection. Its fields are guarded by the Net's mutex.
type half struct {
	net           *Net
	from, to      string
	other         *half
	changed       *sync.Cond
	flight        []segment
	size, arrived int
	limit         int
	finished      bool // the writer is done
	gone          bool // the reader is
	broken        bool
	read, write   time.Time // deadlines
	timers        [2]*time.Timer
}

type segment struct {
	at time.Time
	b  []byte
}

func (n *Net) newHalfLocked(from, to string) *half {
	h := &half{net: n, from: from, to: to, limit: n.limit, changed: sync.NewCond(&n.mu)}
	n.halves[h] = struct{}{}
	return h
}

// conn is one end of a connection.
type conn struct{ in, out *half }

func (c *conn) LocalAddr() net.Addr  { return addr(c.out.from) }
func (c *conn) RemoteAddr() net.Addr { return addr(c.out.to) }

func (c *conn) failed(op string, err error) error {
	return &net.OpError{Op: op, Net: "hoststest", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func over(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

func (c *conn) Read(b []byte) (int, error) {
	h, n := c.in, c.in.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		reached := n.reachLocked(h.from, h.to)
		switch {
		case h.gone:
			return 0, c.failed("read", net.ErrClosed)
		case over(h.read):
			return 0, c.failed("read", os.ErrDeadlineExceeded)
		case h.broken:
			return 0, c.failed("read", syscall.ECONNRESET)
		case len(b) == 0:
			return 0, nil
		case reached && len(h.flight) > 0 && !h.flight[0].at.After(time.Now()):
			s := &h.flight[0]
			if n.chop > 0 {
				b = b[:min(len(b), 1+n.random.IntN(n.chop))]
			}
			if h.limit > 0 {
				b = b[:min(len(b), h.limit-h.arrived)]
			}
			k := copy(b, s.b)
			if s.b = s.b[k:]; len(s.b) == 0 {
				h.flight = h.flight[1:]
			}
			h.size -= k
			if h.arrived += k; h.arrived == h.limit {
				h.broken, h.other.broken = true, true
				h.other.changed.Broadcast()
			}
			h.changed.Broadcast()
			return k, nil
		case reached && len(h.flight) == 0 && h.finished:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (c *conn) Write(b []byte) (int, error) {
	h, n := c.out, c.out.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for done := 0; ; {
		switch {
		case h.finished:
			return done, c.failed("write", net.ErrClosed)
		case over(h.write):
			return done, c.failed("write", os.ErrDeadlineExceeded)
		case h.broken || h.gone && n.reachLocked(h.from, h.to) && n.reachLocked(h.to, h.from):
			return done, c.failed("write", syscall.ECONNRESET)
		case done == len(b):
			return done, nil
		case h.size < inFlight:
			k := min(len(b)-done, inFlight-h.size)
			at := time.Now()
			if n.delay > 0 {
				at = at.Add(time.Duration(n.random.Int64N(int64(n.delay))))
			}
			if k0 := len(h.flight); k0 > 0 && h.flight[k0-1].at.After(at) {
				at = h.flight[k0-1].at
			}
			h.flight = append(h.flight, segment{at, append([]byte(nil), b[done:done+k]...)})
			h.size += k
			done += k
			h.changed.Broadcast()
			h.wakeAt(at)
			continue
		}
		h.changed.Wait()
	}
}

// wakeAt has those who wait look again then.
func (h *half) wakeAt(at time.Time) *time.Timer {
	if d := time.Until(at); d > 0 {
		return time.AfterFunc(d, func() { h.net.set(h.changed.Broadcast) })
	}
	return nil
}

func (h *half) stopTimer(i int) {
	if h.timers[i] != nil {
		h.timers[i].Stop()
	}
}

// CloseWrite says that nothing more comes from this end.
func (c *conn) CloseWrite() error {
	c.out.net.set(func() {
		c.out.finished = true
		c.out.changed.Broadcast()
	})
	return nil
}

func (c *conn) Close() error {
	n := c.in.net
	n.mu.Lock()
	defer n.mu.Unlock()
	c.out.finished, c.in.gone = true, true
	c.in.flight, c.in.size = nil, 0
	for _, h := range []*half{c.in, c.out} {
		if h.changed.Broadcast(); h.finished && h.gone {
			delete(n.halves, h)
			h.stopTimer(0)
			h.stopTimer(1)
		}
	}
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.setDeadline(&c.in.read, 0, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.setDeadline(&c.out.write, 1, t) }

func (h *half) setDeadline(deadline *time.Time, timer int, t time.Time) error {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	*deadline = t
	h.stopTimer(timer)
	h.timers[timer] = h.wakeAt(t)
	h.changed.Broadcast()
	return nil
}
