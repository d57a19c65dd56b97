package netactor

import (
	"cmp"
	"container/heap"
)

// order keeps the seats of one listener in the order in which its policy picks
// them. It decides among seats that have room and knows nothing else.
type order interface {
	join(s *seat)   // the seat takes part
	leave(s *seat)  // it does no longer; update(s) with no room came before
	update(s *seat) // its room or its load may have changed
	// pick returns the seat for one connection, with room; nil if none has.
	pick(t *ticket) *seat
}

func newOrder(l *ledger, p Policy, f Functions) order {
	switch p {
	case LeastLoaded:
		return new(leastLoaded)
	case Hash:
		return &hashRing{l: l, key: f.Key}
	case Custom:
		if f.Picker != nil {
			return &custom{l: l, picker: f.Picker}
		}
	case RoundRobin, Shared, ReusePort, policies:
	}
	return new(roundRobin)
}

// roundRobin keeps the seats that have room in a ring. The head is picked and
// goes to the end; one that gets room again enters at the end. So the order is
// that of Node's cluster, least recently freed first, and strictly cyclic as
// long as all have room. O(1).
type roundRobin struct{ head, tail *seat }

func (r *roundRobin) join(*seat)  {}
func (r *roundRobin) leave(*seat) {}

func (r *roundRobin) update(s *seat) {
	switch {
	case s.room > 0 && !s.ringed:
		r.push(s)
	case s.room == 0 && s.ringed:
		r.remove(s)
	}
}

func (r *roundRobin) pick(*ticket) *seat {
	s := r.head
	if s != nil {
		r.remove(s)
		r.push(s)
	}
	return s
}

func (r *roundRobin) push(s *seat) {
	s.prev, s.next, s.ringed = r.tail, nil, true
	if r.tail != nil {
		r.tail.next = s
	} else {
		r.head = s
	}
	r.tail = s
}

func (r *roundRobin) remove(s *seat) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		r.head = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		r.tail = s.prev
	}
	s.prev, s.next, s.ringed = nil, nil, false
}

// leastLoaded keeps the seats that have room in a heap by weight; of equals, the
// one picked the longest ago. O(log n).
type leastLoaded struct {
	seats []*seat
	turn  uint64
}

func (l *leastLoaded) join(*seat)  {}
func (l *leastLoaded) leave(*seat) {}

func (l *leastLoaded) update(s *seat) {
	switch in := s.index >= 0; {
	case s.room > 0 && in:
		heap.Fix(l, s.index)
	case s.room > 0:
		heap.Push(l, s)
	case in:
		heap.Remove(l, s.index)
	}
}

func (l *leastLoaded) pick(*ticket) *seat {
	if len(l.seats) == 0 {
		return nil
	}
	s := l.seats[0]
	l.turn++
	s.lastUse = l.turn
	heap.Fix(l, 0)
	return s
}

// Len, Less, Swap, Push and Pop are heap.Interface.

func (l *leastLoaded) Len() int { return len(l.seats) }

func (l *leastLoaded) Less(i, j int) bool {
	a, b := l.seats[i], l.seats[j]
	return cmp.Or(cmp.Compare(a.weight(), b.weight()), cmp.Compare(a.lastUse, b.lastUse)) < 0
}

func (l *leastLoaded) Swap(i, j int) {
	l.seats[i], l.seats[j] = l.seats[j], l.seats[i]
	l.seats[i].index, l.seats[j].index = i, j
}

func (l *leastLoaded) Push(x any) {
	s := x.(*seat)
	s.index = len(l.seats)
	l.seats = append(l.seats, s)
}

func (l *leastLoaded) Pop() any {
	s := l.seats[len(l.seats)-1]
	l.seats = l.seats[:len(l.seats)-1]
	s.index = -1
	return s
}
