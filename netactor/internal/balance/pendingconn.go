package balance

import (
	"net/netip"

	"github.com/coppice-go/coppice/fdipc"
)

// PendingConn is one accepted connection until a worker has claimed it.
type PendingConn struct {
	Listener   *ListenerState
	OfferedTo  *Membership  // where it is offered; nil while it peeks or waits
	next, prev *PendingConn // in the listener's waiting, or in OfferedTo.offers
	At         int64        // when it was accepted, or had sent enough, by shm.Monotonic
	Key        uint64       // the key by which Hash places it, if Keyed
	Keyed      bool
	OnlyTo     uint64 // the worker that may have it, by ID; 0 = each

	// The next fields are used by Dispatcher alone, but for Peer, which policies use, and Local.
	Peer  netip.AddrPort
	Local netip.AddrPort // for a KeyFunc
	Peek  PeekState
	First string // the key of Functions.PoisonKey, after the listener's name; "" = none
	Until int64  // if it is parked: when it has been idle for too long, by shm.Monotonic; 0 is never

	Parked  bool // it was parked before: other processes may have copies
	Passing bool // it is on its way to the successor of this process, by a worker
	Passes  int  // how often it was sent on this way
	FD      int  // of Handle while the connection is here; -1 if there is none
	Handle  *fdipc.Handle
	Via     *fdipc.Conn // the link over which it is offered
	Trace   any         // its spans; nil if tracing is off
}

// endOffer ends an offer, whatever its outcome, and returns its membership.
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

// Next returns the connection behind p in its list, or nil.
func (p *PendingConn) Next() *PendingConn { return p.next }

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

// age returns how long ago the first connection of q was accepted, in nanoseconds; 0 if q is empty.
func (q *ConnList) age(now int64) int64 {
	if q.Head == nil {
		return 0
	}
	return max(0, now-q.Head.At)
}
