package netactor

import (
	"net/netip"

	"github.com/coppice-go/coppice/fdipc"
)

// ticket is one accepted connection until a worker has claimed it.
type ticket struct {
	l          *ledger
	s          *seat   // where it is offered; nil while it waits
	next, prev *ticket // in the list of those that wait, or in its seat's
	at         int64   // when it was accepted, or had said enough, by the clock of monotonic
	key        uint64  // what Hash places it by, if keyed
	keyed      bool

	// What follows is the driver's but for peer, by which policies pick.
	peer  netip.AddrPort
	local netip.AddrPort // for a KeyFunc
	seen  seen
	fd    int // of h while t waits; -1 where there is none
	h     *fdipc.Handle
	via   *fdipc.Conn  // the link by which it is offered
	trace *ticketTrace // nil when tracing is off
}

// unoffer ends an offer, whatever its outcome.
func (t *ticket) unoffer() *seat {
	s := t.s
	s.offers.remove(t)
	s.counts.Offered--
	s.a.offered--
	t.l.counts.Offered--
	return s
}

// tickets is a list of tickets, first in first out.
type tickets struct{ head, tail *ticket }

func (q *tickets) push(t *ticket) {
	t.prev, t.next = q.tail, nil
	if q.tail == nil {
		q.head = t
	} else {
		q.tail.next = t
	}
	q.tail = t
}

func (q *tickets) remove(t *ticket) {
	if t.prev == nil {
		q.head = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		q.tail = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.prev, t.next = nil, nil
}

func (q *tickets) pop() *ticket {
	t := q.head
	if t != nil {
		q.remove(t)
	}
	return t
}

// age is how long ago the first of q was accepted, in nanoseconds; 0 when there is none.
func (q *tickets) age(now int64) int64 {
	if q.head == nil {
		return 0
	}
	return max(0, now-q.head.at)
}
