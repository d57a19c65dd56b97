package netactor

import (
	"net/netip"

	"github.com/coppice-go/coppice/fdipc"
)

// unoffer ends an offer, whatever its outcome.
func (t *ticket) unoffer() *seat {
	s := t.s
	s.counts.Offered--
	s.a.offered--
	t.l.counts.Offered--
	return s
}

// ticket is one accepted connection until a worker has claimed it.
type ticket struct {
	l    *ledger
	s    *seat // where it is offered; nil while it waits
	next *ticket

	// What follows is the driver's but for peer, by which policies pick.
	peer  netip.AddrPort
	fd    int // of h while t waits; -1 where there is none
	h     *fdipc.Handle
	trace *ticketTrace // nil when tracing is off
}

// queue is a list of tickets, first in first out.
type queue struct{ head, tail *ticket }

func (q *queue) push(t *ticket) {
	t.next = nil
	if q.head == nil {
		q.head = t
	} else {
		q.tail.next = t
	}
	q.tail = t
}

func (q *queue) pop() *ticket {
	t := q.head
	if t != nil {
		q.head, t.next = t.next, nil
		if q.head == nil {
			q.tail = nil
		}
	}
	return t
}
