package pool

import (
	"cmp"
	"slices"
)

// scaling is a change of size under way.
type scaling struct {
	open   int // slots to be added or removed yet
	result Effect
}

// rescale begins to add or to remove slots.
func (s *State) rescale(ev Event) {
	s.scale = &scaling{result: Effect{Kind: Scaled}}
	victims := s.victims(ev.Busy)
	size := len(victims)
	for _, l := range victims {
		if size > ev.Size || l.off { // one that has ended for good makes room for another
			l.removing, l.due = true, false
			s.scale.open++
			size--
			s.do(Effect{Kind: Remove, Slot: l.n})
		}
	}
	for n := 0; size < ev.Size; n++ {
		if s.slots[n] == nil {
			s.slots[n] = &slot{n: n, gen: s.gen}
			s.scale.open++
			size++
			s.do(Effect{Kind: Add, Slot: n})
		}
	}
	s.scaled()
}

// victims returns the slots in the order in which they go.
func (s *State) victims(busy map[int]int) []*slot {
	all := s.inOrder()
	slices.SortStableFunc(all, func(a, b *slot) int {
		if a.ready() != b.ready() {
			if b.ready() {
				return -1
			}
			return 1
		}
		youngest := cmp.Or(cmp.Compare(b.cur, a.cur), cmp.Compare(b.n, a.n))
		switch s.cfg.Cull {
		case Oldest:
			return -youngest
		case LeastBusy:
			return cmp.Or(cmp.Compare(busy[a.n], busy[b.n]), youngest)
		case Youngest:
		}
		return youngest
	})
	return all
}

// added takes note of a slot that was added.
func (s *State) added(ev Event) {
	if ev.Failed {
		if s.scale != nil {
			s.scale.result.Outcome, s.scale.result.Slot = Failed, ev.Slot
		}
		s.remove(ev.Slot)
	}
	if s.scale != nil {
		s.scale.open--
		s.scaled()
	}
}

// removed takes note of a slot that was removed.
func (s *State) removed(n int) {
	s.remove(n)
	if s.scale != nil {
		s.scale.open--
		s.scaled()
	}
}

// remove forgets a slot. Whoever is left in it goes.
func (s *State) remove(n int) {
	if l := s.slots[n]; l != nil {
		s.vacate(l)
		delete(s.slots, n)
	}
}

func (s *State) scaled() {
	if s.scale.open == 0 {
		s.scale.result.Size = len(s.slots)
		s.do(s.scale.result)
		s.scale = nil
	}
}
