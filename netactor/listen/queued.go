package listen

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
	"github.com/coppice-go/coppice/tracing"
)

// maxQueue bounds the connections that a listener holds unclaimed. The dispatcher's window is
// smaller: only a broken dispatcher sends more.
const maxQueue = netactor.MaxWindow

// queuedListener is a net.Listener that returns connections which the listener process offered.
type queuedListener struct {
	ls       *Listeners
	number   uint64
	address  net.Addr
	reporter *reporter
	kind     fdipc.HandleKind // of its connections
	park     time.Duration    // as Request.Park
	done     func()           // gives the ordinal back
	wake     chan struct{}    // capacity 1: the queue is not empty
	ended    chan struct{}    // closed by close

	mu     sync.Mutex
	queue  []offeredConn // from head on
	head   int
	closed bool
}

// offeredConn is one connection on offer.
type offeredConn struct {
	h        *fdipc.Handle
	via      *fdipc.Conn
	accepted int64  // when it was accepted, by shm.Monotonic; 0 if the offer does not have that
	parked   bool   // it was parked before
	first    string // its key, if its first bytes have one
	claim    tracing.Span
}

func newQueuedListener(ls *Listeners, r wire.ListenReply, addr net.Addr, done func()) *queuedListener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return &queuedListener{
		kind: wire.ConnKind(r.Network), park: r.Park, ls: ls, number: r.Number, address: addr, reporter: ls.reporterLocked(r.Number), done: done,
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

func (l *queuedListener) dispatched() bool { return true }

// push takes ownership of the handles of an offer; times has the time of each accept, 8 bytes each,
// and after these perhaps the key of each, after a byte with its length.
func (l *queuedListener) push(via *fdipc.Conn, handles []*fdipc.Handle, times []byte) {
	firsts := times[min(len(times), 8*len(handles)):]
	l.mu.Lock()
	reason := wire.ReasonClosed
	if !l.closed {
		reason = wire.ReasonFull
		if l.head > 0 && len(l.queue)+len(handles) > cap(l.queue) {
			n := copy(l.queue, l.queue[l.head:])
			clear(l.queue[n:])
			l.queue, l.head = l.queue[:n], 0
		}
		for len(handles) > 0 && len(l.queue)-l.head < maxQueue {
			o := offeredConn{h: handles[0], via: via, claim: l.startClaim(handles[0])}
			if len(times) >= 8 {
				o.accepted = int64(binary.LittleEndian.Uint64(times))
				if o.parked = o.accepted < 0; o.parked {
					o.accepted = -o.accepted
				}
				times = times[8:]
			}
			if len(firsts) > 0 {
				n := min(1+int(firsts[0]), len(firsts))
				o.first, firsts = string(firsts[1:n]), firsts[n:]
			}
			l.queue = append(l.queue, o)
			handles = handles[1:]
		}
	}
	l.mu.Unlock()
	l.signal()
	for _, h := range handles {
		h.Refuse(reason)
	}
}

func (l *queuedListener) startClaim(h *fdipc.Handle) tracing.Span {
	if l.ls.cfg.Tracer == nil || h.Trace == (fdipc.TraceContext{}) {
		return tracing.Span{}
	}
	return l.ls.cfg.Tracer.Claim(h.Trace, tracing.Claim{Pool: l.ls.cfg.Pool, Kind: "conn"})
}

func (l *queuedListener) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// pop removes the first connection from the queue and returns it.
func (l *queuedListener) pop() (o offeredConn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.head == len(l.queue) {
		return offeredConn{}, false
	}
	o = l.queue[l.head]
	l.queue[l.head] = offeredConn{}
	l.head++
	if l.head == len(l.queue) {
		l.queue, l.head = l.queue[:0], 0
	} else {
		l.signal() // for another Accept
	}
	return o, true
}

// Accept waits for a connection and claims it: then this worker owns it. It skips a connection
// whose offer was revoked.
func (l *queuedListener) Accept() (net.Conn, error) {
	for {
		if o, ok := l.pop(); ok {
			if c := l.claim(o); c != nil {
				return c, nil
			}
			continue
		}
		select {
		case <-l.wake:
		case <-l.ended:
			return nil, l.closedError("accept")
		}
	}
}

// claim claims the connection of an offer; it returns nil if that fails.
func (l *queuedListener) claim(o offeredConn) net.Conn {
	if l.kind != fdipc.HandleTCP {
		if a := o.h.Accepted(); a.LocalName != "" { // it may be bound by another name than the request's
			a.LocalName = l.address.String()
			o.h.SetAccepted(a)
		}
	}
	c, err := o.h.Known(l.kind).Conn()
	if err != nil {
		o.claim.EndError(err)
		_ = o.h.Close()
		if !errors.Is(err, fdipc.ErrRevoked) {
			l.ls.cfg.Logger.Warn("offered connection cannot be used", "listener", l.address, "err", err)
		}
		return nil
	}
	r := connRecord{conns: l.ls.conns, span: o.claim.Serve(), parked: o.parked}
	if f := l.ls.cfg.Serving; f != nil && o.first != "" {
		r.served = f(o.first)
	}
	if l.reporter.claimed(o.via, o.accepted) {
		r.reporter = l.reporter
	}
	o.claim.EndAt(o.h.ResolvedAt(), "", "") // the exact end of the hand-off
	return wrap(c, r, l)
}

func (l *queuedListener) closedError(op string) error {
	return &net.OpError{Op: op, Net: l.address.Network(), Addr: l.address, Err: net.ErrClosed}
}

// Close ends the listener for this worker. Connections that it has not accepted go to other
// workers; the socket stays open as long as another worker, or a spec, has it. Accept returns an
// error that is net.ErrClosed.
func (l *queuedListener) Close() error {
	if !l.close(true) {
		return l.closedError("close")
	}
	return nil
}

// isClosed reports whether l was closed.
func (l *queuedListener) isClosed() bool { return isClosed(l.ended) }

func (l *queuedListener) closedByMaster() { l.close(false) }

// close closes l once. If tell is set, it reports the close to the master.
func (l *queuedListener) close(tell bool) bool {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return false
	}
	l.closed = true
	rest := l.queue[l.head:]
	l.queue, l.head = nil, 0
	l.mu.Unlock()
	close(l.ended)
	// Send KindLeave to the listener process before the offers go back to it.
	l.ls.sendKind(l.ls.forget(l, l.number), wire.KindLeave, l.number)
	for _, o := range rest {
		o.claim.EndError(net.ErrClosed)
		o.h.Refuse(wire.ReasonClosed)
	}
	if tell {
		l.ls.reportClosed(l.number)
	}
	l.done()
	l.ls.parkAll()
	return true
}

// Addr returns the address that the socket is bound to.
func (l *queuedListener) Addr() net.Addr { return l.address }
