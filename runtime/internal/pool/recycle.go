package pool

// markDue marks a slot's worker to be replaced. A spare just ends: refillSpares launches
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

// recycle replaces workers that are due, a few at a time. During a roll it does nothing: the
// roll replaces them.
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

// Spread returns the limit of one slot for a limit that the user has set for all, so that
// workers that started together are not due together. It is shorter by up to jitter, in
// strata by slot with a gap between them. random is at least 0 and below 1.
func Spread(limit, jitter float64, slot, slots int, random float64) float64 {
	slots = max(slots, 1)
	stratum := (float64(slot%slots) + random/2) / float64(slots)
	return limit * (1 - jitter*stratum)
}
