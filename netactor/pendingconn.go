package netactor

import (
	"net/netip"

	"github.com/coppice-go/coppice/fdipc"
)

// pendingConn is one accepted connection until a worker has claimed it.
type pendingConn struct {
	listener   *listenerState
	offeredTo  *membership  // where it is offered; nil while it waits
	next, prev *pendingConn // in the list of those that wait, or in its member's
	at         int64        // when it was accepted, or had said enough, by the clock of monotonic
	key        uint64       // what Hash places it by, if keyed
	keyed      bool

	// What follows is the driver's but for peer, by which policies pick.
	peer  netip.AddrPort
	local netip.AddrPort // for a KeyFunc
	peek  peekState
	fd    int // of h while t waits; -1 where there is none
	h     *fdipc.Handle
	via   *fdipc.Conn // the link by which it is offered
	trace any         // its spans; nil when tracing is off
}

// endOffer ends an offer, whatever its outcome.
func (p *pendingConn) endOffer() *membership {
	m := p.offeredTo
	m.offers.remove(p)
	m.counts.Offered--
	m.worker.offered--
	p.listener.counts.Offered--
	return m
}

// connList is a list of connections, first in first out.
type connList struct{ head, tail *pendingConn }

func (q *connList) push(p *pendingConn) {
	p.prev, p.next = q.tail, nil
	if q.tail == nil {
		q.head = p
	} else {
		q.tail.next = p
	}
	q.tail = p
}

func (q *connList) remove(p *pendingConn) {
	if p.prev == nil {
		q.head = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		q.tail = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}

func (q *connList) pop() *pendingConn {
	p := q.head
	if p != nil {
		q.remove(p)
	}
	return p
}

// age is how long ago the first of q was accepted, in nanoseconds; 0 when there is none.
func (q *connList) age(now int64) int64 {
	if q.head == nil {
		return 0
	}
	return max(0, now-q.head.at)
}
