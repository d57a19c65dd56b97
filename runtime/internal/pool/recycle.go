package pool

// markDue takes note that a slot's worker is to be replaced. A spare just goes: grow sees to
// another.
func (s *State) markDue(id WorkerSeq) {
	w := s.workers[id]
	if w == nil {
		return
	}
	switch w.phase {
	case active:
		if sl := s.slots[w.slot]; sl.current == id && sl.running {
			sl.due = true
		}
	case spare:
		s.retire(w, ForRecycle, true)
	case warming:
		s.discard(w, ForRecycle)
	case launching, assigned, draining, dying:
	}
}

// recycle replaces those that are due, a few at a time. A roll replaces them anyway.
func (s *State) recycle() {
	if s.roll != nil || s.scale != nil {
		return
	}
	busy := 0
	for _, sl := range s.slots {
		if sl.replacing != notReplacing {
			busy++
		}
	}
	for _, sl := range s.inOrder() {
		if busy >= s.cfg.Recycling {
			return
		}
		if sl.due && sl.replacing == notReplacing && sl.ready() && sl.retry <= s.now && s.beginReplace(sl, sl.gen, ForRecycle) {
			busy++
		}
	}
}

// Spread makes a limit of its own for each slot out of the one that the user set, so
// that workers that were started together are not due together: shorter by up to
// jitter, in strata by slot, between which there is always a gap. random is at least
// 0 and below 1.
func Spread(limit, jitter float64, slot, slots int, random float64) float64 {
	slots = max(slots, 1)
	stratum := (float64(slot%slots) + random/2) / float64(slots)
	return limit * (1 - jitter*stratum)
}
