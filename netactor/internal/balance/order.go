package balance

import (
	"cmp"
	"container/heap"

	"github.com/coppice-go/coppice/netactor"
)

// order keeps the memberships of one listener in the order in which its policy picks them. It
// chooses among memberships that have room, and does nothing else.
type order interface {
	join(m *Membership)   // m takes part
	leave(m *Membership)  // m no longer takes part; update(m) without room came before
	update(m *Membership) // m's room or load may have changed
	// pick returns a membership with room for one connection; nil if none has room.
	pick(p *PendingConn) *Membership
}

func newOrder(l *ListenerState, p netactor.Policy, f netactor.Functions) order {
	switch p {
	case netactor.LeastLoaded:
		return new(leastLoaded)
	case netactor.Hash:
		return &hashRing{l: l, key: f.Key}
	case netactor.Custom:
		if f.Picker != nil {
			return &pickerOrder{l: l, picker: f.Picker}
		}
	default:
	}
	return new(roundRobin)
}

// roundRobin keeps the memberships that have room in a ring. The head is picked and goes to the
// end; a membership that gets room again enters at the end. So the order is that of Node's cluster,
// least recently freed first, and strictly cyclic as long as all have room. O(1).
type roundRobin struct{ head, tail *Membership }

func (r *roundRobin) join(*Membership)  {}
func (r *roundRobin) leave(*Membership) {}

func (r *roundRobin) update(m *Membership) {
	switch {
	case m.room > 0 && !m.inRing:
		r.push(m)
	case m.room == 0 && m.inRing:
		r.remove(m)
	}
}

func (r *roundRobin) pick(*PendingConn) *Membership {
	m := r.head
	if m != nil {
		r.remove(m)
		r.push(m)
	}
	return m
}

func (r *roundRobin) push(m *Membership) {
	m.prev, m.next, m.inRing = r.tail, nil, true
	if r.tail != nil {
		r.tail.next = m
	} else {
		r.head = m
	}
	r.tail = m
}

func (r *roundRobin) remove(m *Membership) {
	if m.prev != nil {
		m.prev.next = m.next
	} else {
		r.head = m.next
	}
	if m.next != nil {
		m.next.prev = m.prev
	} else {
		r.tail = m.prev
	}
	m.prev, m.next, m.inRing = nil, nil, false
}

// leastLoaded keeps the memberships that have room in a heap by weight; of equal ones, the one
// picked the longest ago comes first. O(log n).
type leastLoaded struct {
	members []*Membership
	picks   uint64
}

func (l *leastLoaded) join(*Membership)  {}
func (l *leastLoaded) leave(*Membership) {}

func (l *leastLoaded) update(m *Membership) {
	switch in := m.index >= 0; {
	case m.room > 0 && in:
		heap.Fix(l, m.index)
	case m.room > 0:
		heap.Push(l, m)
	case in:
		heap.Remove(l, m.index)
	}
}

func (l *leastLoaded) pick(*PendingConn) *Membership {
	if len(l.members) == 0 {
		return nil
	}
	m := l.members[0]
	l.picks++
	m.lastUse = l.picks
	heap.Fix(l, 0)
	return m
}

// Len, Less, Swap, Push and Pop are the methods of heap.Interface.

func (l *leastLoaded) Len() int { return len(l.members) }

func (l *leastLoaded) Less(i, j int) bool {
	a, b := l.members[i], l.members[j]
	return cmp.Or(cmp.Compare(a.weight(), b.weight()), cmp.Compare(a.lastUse, b.lastUse)) < 0
}

func (l *leastLoaded) Swap(i, j int) {
	l.members[i], l.members[j] = l.members[j], l.members[i]
	l.members[i].index, l.members[j].index = i, j
}

func (l *leastLoaded) Push(x any) {
	m := x.(*Membership)
	m.index = len(l.members)
	l.members = append(l.members, m)
}

func (l *leastLoaded) Pop() any {
	m := l.members[len(l.members)-1]
	l.members = l.members[:len(l.members)-1]
	m.index = -1
	return m
}
