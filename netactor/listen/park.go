package listen

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/shm"
)

// parkable is the part of a handed-over connection that lets it go back to the listener process
// between two requests: see [netactor.ParkableConn]. It leaves from within a Read for the next
// request. Another goroutine interrupts that Read by a deadline in the past: the Read then returns
// bytes or the deadline's error, never both.
type parkable struct {
	conn     handedOver // a *fdipc.Socket, or a *fdipc.UnixSocket
	once     closeOnce
	counted  *connRecord
	listener *queuedListener

	mode atomic.Uint32 // staysHere and the like; changed under mu
	room atomic.Int64  // the room for the first Read: its buffer's capacity; 0 before it

	mu      sync.Mutex
	stays   bool
	lent    bool // others may use the descriptor
	idle    bool // all that was read is answered
	waits   bool // a read deadline was set since it became idle
	ripe    bool // idle, and in a Read into an empty buffer
	leaving bool // it is to go as soon as it is ripe
	closed  bool
	until   time.Time // the read deadline that the server has set
	writeBy time.Time // the write deadline that the server has set
	since   int64     // when it became idle, by shm.Monotonic; 0 if park is no duration
}

// handedOver is a connection that was handed over.
type handedOver interface {
	net.Conn
	SyscallConn() (syscall.RawConn, error)
	File() (*os.File, error)
	CloseRead() error
	CloseWrite() error
}

// Modes of a parkable.
const (
	staysHere uint32 = iota // the server does not take part, or the connection stays
	mayLeave
	hasLeft
)

// Idle is that of [netactor.ParkableConn].
func (p *parkable) Idle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	park := p.listener.park
	if p.stays || park == netactor.ParkNever || p.mode.Load() == hasLeft {
		return
	}
	p.mode.Store(mayLeave)
	p.idle, p.waits = true, false
	switch {
	case p.mustLeave(), park == netactor.ParkAtOnce && p.room.Load() > 0 && p.listener.ls.linked():
		p.leaving = true // the next Read says so
	case park > 0:
		p.since = shm.Monotonic()
	}
}

// busyLocked is called when a request has begun.
func (p *parkable) busyLocked() { p.idle, p.leaving = false, p.leaving && p.mustLeave() }

// mustLeave reports whether the worker drains, so that the connection is to go between two
// requests.
func (p *parkable) mustLeave() bool {
	return p.listener.ls.parking.Load() && p.listener.isClosed() && p.listener.ls.linked()
}

// Parks is that of [netactor.ParkableConn]. While the worker drains, the link to the next listener
// process may be on its way.
func (p *parkable) Parks() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.listener
	return !p.stays && l.park != netactor.ParkNever && (l.ls.parking.Load() || l.ls.linked() && !l.isClosed())
}

// Stay is that of [netactor.ParkableConn].
func (p *parkable) Stay() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stays = true
	if p.mode.Load() != hasLeft {
		p.mode.Store(staysHere)
		p.restoreDeadline()
		p.idle, p.ripe, p.leaving = false, false, false
	}
}

// leaveIfDraining makes the connection go between two requests, now or after its answer, if the
// worker drains.
func (p *parkable) leaveIfDraining() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mustLeave() {
		p.leaveLocked()
	}
}

// leaveIfIdle makes a connection of l go that has waited for its next request since before t, by
// shm.Monotonic.
func (p *parkable) leaveIfIdle(l *queuedListener, t int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == l && p.ripe && p.since != 0 && p.since < t {
		p.leaveLocked()
	}
}

func (p *parkable) leaveLocked() {
	if p.mode.Load() == hasLeft {
		return
	}
	p.leaving = true
	if p.ripe {
		_ = p.conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// restoreDeadline undoes what leave has set.
func (p *parkable) restoreDeadline() {
	if p.ripe && p.leaving {
		_ = p.conn.SetReadDeadline(p.until)
	}
}

// Read reads what there is, and waits if there is nothing.
func (p *parkable) Read(b []byte) (int, error) {
	room := p.room.Load()
	if room == 0 {
		room = int64(cap(b))
		p.room.Store(room)
	}
	switch p.mode.Load() {
	case staysHere:
		return p.conn.Read(b)
	case hasLeft:
		return 0, p.gone("read")
	}
	if int64(cap(b)) < room { // as net/http's during a request, which looks whether the client is there
		n, err := p.conn.Read(b)
		if n > 0 {
			p.mu.Lock()
			p.busyLocked()
			p.mu.Unlock()
		}
		return n, err
	}
	p.mu.Lock()
	p.ripe = p.idle
	left := p.ripe && p.leaving && p.giveBack()
	p.mu.Unlock()
	if !left {
		n, err := p.conn.Read(b)
		if left = p.endRead(n, err); !left {
			return n, err
		}
	}
	p.counted.span.End() // without the lock: it may run code of the user's
	return 0, p.gone("read")
}

// endRead takes the result of a Read, and reports whether the connection has left.
func (p *parkable) endRead(n int, err error) (left bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n == 0 && p.ripe && p.leaving && errors.Is(err, os.ErrDeadlineExceeded) && p.giveBack() {
		return true
	}
	p.restoreDeadline() // bytes came in the moment in which it was to leave
	p.ripe = false
	if n > 0 {
		p.busyLocked()
	}
	return false
}

// giveBack has the connection sent to the listener process. It returns false if it is closed.
func (p *parkable) giveBack() bool {
	if p.closed {
		return false
	}
	h, err := fdipc.HandleOf(p.conn)
	if err != nil {
		return false
	}
	h.Trace = p.counted.span.Carrier() // its next stay links to this one
	p.mode.Store(hasLeft)
	_ = p.conn.SetDeadline(time.Time{}) // within one process the connection itself is handed over
	var until int64
	if !p.until.IsZero() {
		until = max(1, shm.Monotonic()+int64(time.Until(p.until)))
	}
	p.counted.beforeClose()
	p.listener.ls.returning.add(&returningConn{handle: h, number: p.listener.number, until: until, record: p.counted})
	return true
}

// Write writes all of b, and waits while there is no room.
func (p *parkable) Write(b []byte) (int, error) {
	if p.mode.Load() == hasLeft {
		return 0, p.gone("write")
	}
	return p.conn.Write(b)
}

// SetDeadline sets the read and write deadlines.
func (p *parkable) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of Read.
func (p *parkable) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.stillNone(p.until, t)
	p.until = t
	if p.idle && !p.ripe && p.room.Load() > 0 {
		// The second one since Idle is for a request that came with the one before, in whose middle
		// the server's buffer may be empty.
		if p.waits {
			p.busyLocked()
		}
		p.waits = true
	}
	if same || p.ripe && p.leaving || p.mode.Load() == hasLeft { // of the last two: Read is about to return
		return nil
	}
	return p.conn.SetReadDeadline(t)
}

// stillNone reports whether the kernel's side of a deadline need not hear of t: there was none, and
// there is none. net/http says so four times for a request, and each costs a lock and the clock of
// the poller.
func (p *parkable) stillNone(before, t time.Time) bool {
	return before.IsZero() && t.IsZero() && !p.lent && !p.closed
}

// SetWriteDeadline sets the deadline of Write.
func (p *parkable) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	same := p.stillNone(p.writeBy, t)
	p.writeBy = t
	if same || p.mode.Load() == hasLeft {
		return nil
	}
	return p.conn.SetWriteDeadline(t)
}

// staysFor makes the connection stay, for a call of that name that this file does not follow. It
// returns an error if it has left.
func (p *parkable) staysFor(op string) error {
	p.Stay()
	p.mu.Lock()
	p.lent = true
	p.mu.Unlock()
	if p.mode.Load() == hasLeft {
		return p.gone(op)
	}
	return nil
}

// Close closes the connection and counts its end.
func (p *parkable) Close() error {
	p.mu.Lock()
	left, lent := p.mode.Load() == hasLeft, p.lent
	p.closed = true
	p.mu.Unlock()
	if left {
		return nil // it is the listener process's
	}
	if p.counted.parked && !lent {
		_ = p.conn.CloseWrite() // a worker that gave it back may still have a copy, without which Close sends the FIN
	}
	return p.once.close(p.conn, p.counted)
}

// NetConn returns the connection without the counting. The connection stays here.
func (p *parkable) NetConn() net.Conn {
	if p.staysFor("") != nil {
		return goneConn{p}
	}
	return p.conn
}

// SyscallConn returns raw access. The connection stays here.
func (p *parkable) SyscallConn() (syscall.RawConn, error) {
	if err := p.staysFor("raw-control"); err != nil {
		return nil, err
	}
	return p.conn.SyscallConn()
}

// File returns a duplicate of the descriptor, owned by the caller. The connection stays here.
func (p *parkable) File() (*os.File, error) {
	if err := p.staysFor("file"); err != nil {
		return nil, err
	}
	return p.conn.File()
}

// CloseRead shuts the reading half down. The connection stays here.
func (p *parkable) CloseRead() error {
	if err := p.staysFor("close"); err != nil {
		return err
	}
	return p.conn.CloseRead()
}

// CloseWrite shuts the writing half down. The connection stays here.
func (p *parkable) CloseWrite() error {
	if err := p.staysFor("close"); err != nil {
		return err
	}
	return p.conn.CloseWrite()
}

// gone returns the error of a call after the connection has left. Package http takes an error of
// Read that is no *net.OpError of op read for a bad request, and would answer it.
func (p *parkable) gone(op string) error {
	return &net.OpError{Op: op, Net: p.conn.LocalAddr().Network(), Source: p.conn.LocalAddr(), Addr: p.conn.RemoteAddr(), Err: netactor.ErrParked}
}

// goneConn is a connection that has left, for code that asks for the one below.
type goneConn struct{ *parkable }

// NetConn returns nil: there is none below.
func (goneConn) NetConn() net.Conn { return nil }

// LocalAddr returns the address that the client connected to.
func (c goneConn) LocalAddr() net.Addr { return c.conn.LocalAddr() }

// RemoteAddr returns the client's address.
func (c goneConn) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// from says which listener accepted the connection. It is called once, before any other method.
func (p *parkable) from(l *queuedListener) { p.listener = l }

// parkSweep makes the connections leave that have been idle for long enough, and calls itself again
// while the listener is open.
func (l *queuedListener) parkSweep() {
	if l.isClosed() {
		return
	}
	if l.ls.linked() {
		before := shm.Monotonic() - int64(l.park)
		for _, c := range l.ls.conns.list() {
			if p, ok := c.(interface{ leaveIfIdle(*queuedListener, int64) }); ok {
				p.leaveIfIdle(l, before)
			}
		}
	}
	time.AfterFunc(sweepEvery(l.park), l.parkSweep) // ends when the listener has ended
}

// sweepEvery returns how often idle connections are looked for: a part of park, so that they leave
// not much later.
func sweepEvery(park time.Duration) time.Duration {
	return min(max(park/4, netactor.MinPark/2), time.Second)
}
