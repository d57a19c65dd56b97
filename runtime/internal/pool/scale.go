package pool

import (
	"cmp"
	"slices"
)

// scaling is a change of size under way.
type scaling struct {
	open   int // slots still to be added or removed
	answer Effect
}

// rescale begins to add or to remove slots.
func (s *State) rescale(ev Event) {
	s.scale = &scaling{answer: Effect{Kind: Scaled}}
	victims := s.removalOrder(ev.Busy)
	size := len(victims)
	for _, sl := range victims {
		if size > ev.Size || sl.done { // one that has ended for good is replaced
			sl.removing, sl.due = true, false
			s.scale.open++
			size--
			s.do(Effect{Kind: Remove, Slot: sl.n})
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

// removalOrder returns the slots in the order in which they are removed.
func (s *State) removalOrder(busy map[int]int) []*slot {
	all := s.inOrder()
	slices.SortStableFunc(all, func(a, b *slot) int {
		if a.ready() != b.ready() {
			if b.ready() {
				return -1
			}
			return 1
		}
		youngest := cmp.Or(cmp.Compare(b.current, a.current), cmp.Compare(b.n, a.n))
		switch s.cfg.RemovalOrder {
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

// added handles the end of an Add.
func (s *State) added(ev Event) {
	if ev.Failed {
		if s.scale != nil {
			s.scale.answer.Result, s.scale.answer.Slot = Failed, ev.Slot
		}
		s.remove(ev.Slot)
	}
	if s.scale != nil {
		s.scale.open--
		s.scaled()
	}
}

// removed handles the end of a Remove.
func (s *State) removed(n int) {
	s.remove(n)
	if s.scale != nil {
		s.scale.open--
		s.scaled()
	}
}

// remove deletes a slot. Workers left in it drain.
func (s *State) remove(n int) {
	if sl := s.slots[n]; sl != nil {
		s.clearSlot(sl)
		delete(s.slots, n)
	}
}

func (s *State) scaled() {
	if s.scale.open == 0 {
		s.scale.answer.Size = len(s.slots)
		s.do(s.scale.answer)
		s.scale = nil
	}
}
