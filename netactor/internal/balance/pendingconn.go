package balance

import (
	"net/netip"

	"github.com/coppice-go/coppice/fdipc"
)

// PendingConn is one accepted connection until a worker has claimed it.
type PendingConn struct {
	Listener   *ListenerState
	OfferedTo  *Membership  // where it is offered; nil while it waits
	next, prev *PendingConn // in the list of those that wait, or in its member's
	At         int64        // when it was accepted, or had said enough, by the clock of monotonic
	Key        uint64       // what Hash places it by, if keyed
	Keyed      bool

	// What follows is the driver's but for peer, by which policies pick.
	Peer   netip.AddrPort
	Local  netip.AddrPort // for a KeyFunc
	Peek   PeekState
	FD     int // of h while t waits; -1 where there is none
	Handle *fdipc.Handle
	Via    *fdipc.Conn // the link by which it is offered
	Trace  any         // its spans; nil when tracing is off
}

// endOffer ends an offer, whatever its outcome.
func (p *PendingConn) endOffer() *Membership {
	m := p.OfferedTo
	m.offers.Remove(p)
	m.Counts.Offered--
	m.Worker.offered--
	p.Listener.Counts.Offered--
	return m
}

// ConnList is a list of connections, first in first out.
type ConnList struct{ Head, tail *PendingConn }

// Push appends p.
func (q *ConnList) Push(p *PendingConn) {
	p.prev, p.next = q.tail, nil
	if q.tail == nil {
		q.Head = p
	} else {
		q.tail.next = p
	}
	q.tail = p
}

// Remove takes p out of the list.
func (q *ConnList) Remove(p *PendingConn) {
	if p.prev == nil {
		q.Head = p.next
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

func (q *ConnList) pop() *PendingConn {
	p := q.Head
	if p != nil {
		q.Remove(p)
	}
	return p
}

// age is how long ago the first of q was accepted, in nanoseconds; 0 when there is none.
func (q *ConnList) age(now int64) int64 {
	if q.Head == nil {
		return 0
	}
	return max(0, now-q.Head.At)
}
