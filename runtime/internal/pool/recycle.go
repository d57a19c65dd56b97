package pool

import "time"

// Workers that are due within earlyLife are due early. The first such worker of a slot is replaced
// at once. The next has to live for earlyLife, the next for twice as long, up to maxEarlyLife,
// until one was not early. A leak that fills a worker within seconds and a limit that every worker
// exceeds look the same; in neither case does it help to replace workers faster.
const (
	earlyLife    = 10 * time.Second
	maxEarlyLife = time.Hour
)

// markDue marks a worker to be replaced: now if it is its slot's, else when it is that. A spare
// just ends: refillSpares launches another.
func (s *State) markDue(ev Event) {
	w := s.workers[ev.Worker]
	if w == nil || w.slot == Trial {
		return
	}
	switch w.phase {
	case active, launching, assigned:
		sl := s.slots[w.slot]
		if sl.current != w.id {
			w.due = true
			break
		}
		sl.once = ev.Once && (sl.once || !sl.due)
		sl.due, sl.hold = true, 0
		if ev.Once {
			sl.retry = 0
		}
		if ev.Brake {
			s.brake(sl, w)
		}
	case spare:
		s.retire(w, ForRecycle, true)
	case warming:
		s.discard(w, ForRecycle)
	case draining, dying, lent:
	}
}

// brake holds back the replacement of a worker that is due early, as those before it were.
func (s *State) brake(sl *slot, w *worker) {
	least := Time(earlyLife)
	for range sl.early - 1 {
		least = min(2*least, maxEarlyLife)
	}
	if s.now-w.since >= least {
		sl.early = 0
		return
	}
	if sl.early++; sl.early > 1 {
		sl.hold = w.since + least
		s.do(Effect{Kind: Hold, Worker: w.id, Slot: sl.n, At: sl.hold})
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
		if sl.due && sl.running && sl.replacing == notReplacing && sl.ready() && max(sl.retry, sl.hold) <= s.now && s.beginReplace(sl, sl.gen, ForRecycle) {
			busy++
		}
	}
}

// endedDue handles the end of a slot's worker that was due, and has ended by itself and in order:
// that is no failure, and its successor, if none is on its way, is launched at once.
func (s *State) endedDue(sl *slot) {
	sl.current = 0
	if sl.replacing == notReplacing {
		sl.replacing, sl.to, sl.why = stopFirst, sl.gen, ForRecycle
		s.give(sl, sl.gen, ForRecycle)
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
