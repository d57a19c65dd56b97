package pool

// isDue takes note that a slot's worker is to be replaced. A spare just goes: grow sees to
// another.
func (s *State) isDue(id Worker) {
	w := s.workers[id]
	if w == nil {
		return
	}
	switch w.phase {
	case holding:
		if l := s.slots[w.slot]; l.cur == id && l.up {
			l.due = true
		}
	case spare:
		s.retire(w, ForRecycle, true)
	case warming:
		s.discard(w, ForRecycle)
	case launching, appointed, draining, dying:
	}
}

// recycle replaces those that are due, a few at a time. A roll replaces them anyway.
func (s *State) recycle() {
	if s.roll != nil || s.scale != nil {
		return
	}
	busy := 0
	for _, l := range s.slots {
		if l.step != still {
			busy++
		}
	}
	for _, l := range s.inOrder() {
		if busy >= s.cfg.Recycling {
			return
		}
		if l.due && l.step == still && l.ready() && l.retry <= s.now && s.begin(l, l.gen, ForRecycle) {
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
