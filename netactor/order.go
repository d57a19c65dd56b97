package netactor

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"net/netip"
	"slices"
)

// order keeps the seats of one listener in the order in which its policy picks
// them. It decides among seats that have room and knows nothing else.
type order interface {
	join(s *seat)   // the seat takes part
	leave(s *seat)  // it does no longer; update(s) with no room came before
	update(s *seat) // its room or its load may have changed
	// pick returns the seat for one connection, with room; nil if none has.
	pick(peer netip.AddrPort) *seat
}

func newOrder(p Policy, picker string) order {
	switch p {
	case LeastLoaded:
		return new(leastLoaded)
	case Hash:
		return new(hashRing)
	case Custom:
		if p := lookupPicker(picker); p != nil {
			return &custom{picker: p}
		}
	case RoundRobin, Shared, policies:
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

func (r *roundRobin) in(s *seat) bool { return s.prev != nil || s.next != nil || r.head == s }

func (r *roundRobin) update(s *seat) {
	switch in := r.in(s); {
	case s.room > 0 && !in:
		r.push(s)
	case s.room == 0 && in:
		r.remove(s)
	}
}

func (r *roundRobin) pick(netip.AddrPort) *seat {
	s := r.head
	if s != nil {
		r.remove(s)
		r.push(s)
	}
	return s
}

func (r *roundRobin) push(s *seat) {
	s.prev, s.next = r.tail, nil
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
	s.prev, s.next = nil, nil
}

// leastLoaded keeps the seats that have room in a heap by load; of equals, the
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

func (l *leastLoaded) pick(netip.AddrPort) *seat {
	if len(l.seats) == 0 {
		return nil
	}
	s := l.seats[0]
	l.turn++
	s.turn = l.turn
	heap.Fix(l, 0)
	return s
}

// Len, Less, Swap, Push and Pop are heap.Interface.

func (l *leastLoaded) Len() int { return len(l.seats) }

func (l *leastLoaded) Less(i, j int) bool {
	a, b := l.seats[i], l.seats[j]
	return cmp.Or(cmp.Compare(a.load(), b.load()), cmp.Compare(a.turn, b.turn)) < 0
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

// hashRing is consistent hashing: each seat has ringPoints points on a circle,
// and a client belongs to the first point at or after its own. A seat's points
// come from its worker's slot, so that a replacement takes over the clients of
// the one it replaces. A seat without room is passed over: that client goes to
// the next point, and comes back later. O(log n) while there is room.
//
// The hash has no secret: the circle must be the same after a restart of the
// listener process, and a client chooses only who serves itself.
type hashRing struct{ points []ringPoint }

type ringPoint struct {
	at uint64
	s  *seat
}

const ringPoints = 64

func (h *hashRing) join(s *seat) {
	at := uint64(s.a.worker.Slot)
	if s.a.worker.Slot < 0 {
		at = ^s.a.worker.ID
	}
	for range ringPoints {
		at = mix(at)
		h.points = append(h.points, ringPoint{at, s})
	}
	// Two workers of one slot, in a reload: the newer comes first.
	slices.SortFunc(h.points, func(a, b ringPoint) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.s.a.worker.ID, a.s.a.worker.ID))
	})
}

func (h *hashRing) leave(s *seat) {
	h.points = slices.DeleteFunc(h.points, func(p ringPoint) bool { return p.s == s })
}

func (h *hashRing) update(*seat) {}

func (h *hashRing) pick(peer netip.AddrPort) *seat {
	ip := peer.Addr().Unmap().As16()
	at := mix(mix(binary.BigEndian.Uint64(ip[:8])) ^ binary.BigEndian.Uint64(ip[8:]))
	from, _ := slices.BinarySearchFunc(h.points, at, func(p ringPoint, at uint64) int { return cmp.Compare(p.at, at) })
	for i := range h.points {
		if p := h.points[(from+i)%len(h.points)]; p.s.room > 0 {
			return p.s
		}
	}
	return nil
}

// mix is the step of the SplitMix64 generator: a good hash of one word.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// custom asks the user's Picker. O(n).
type custom struct {
	picker Picker
	free   []*seat
	loads  []Load
}

func (c *custom) join(*seat)  {}
func (c *custom) leave(*seat) {}

func (c *custom) update(s *seat) {
	i := slices.Index(c.free, s)
	switch {
	case s.room > 0 && i < 0:
		c.free = append(c.free, s)
	case s.room == 0 && i >= 0:
		c.free = slices.Delete(c.free, i, i+1)
	}
}

func (c *custom) pick(peer netip.AddrPort) *seat {
	if len(c.free) == 0 {
		return nil
	}
	c.loads = c.loads[:0]
	for _, s := range c.free {
		c.loads = append(c.loads, Load{Worker: s.a.worker, Offered: s.counts.Offered, Open: s.load() - s.counts.Offered})
	}
	i := c.picker.Pick(peer, c.loads)
	if i < 0 || i >= len(c.free) {
		i = 0
	}
	return c.free[i]
}
