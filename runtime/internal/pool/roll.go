package pool

import "slices"

// roll is a reload on its way through the slots.
type roll struct {
	to     Generation
	back   bool   // to is what they come from
	answer Effect // Rolled
}

// advance begins what the roll may begin, and ends it when all is done.
func (s *State) advance() {
	r := s.roll
	if r == nil {
		return
	}
	why := ForRoll
	if r.back {
		why = ForBack
	}
	open := false
	// Slots without a ready worker come first: that costs nobody anything, and may
	// be what cures them.
	for _, up := range []bool{false, true} {
		for _, sl := range s.inOrder() {
			if sl.replacing != notReplacing {
				open = true
				continue
			}
			if sl.gen == r.to || sl.done || sl.removing {
				continue
			}
			open = true
			if sl.ready() == up {
				s.beginReplace(sl, r.to, why)
			}
		}
	}
	if !open {
		s.gen, s.roll = r.to, nil
		s.do(r.answer)
	}
}

// beginReplace gives sl another worker if it may be now.
func (s *State) beginReplace(sl *slot, to Generation, why Purpose) bool {
	if sl.next != 0 || sl.stopping || sl.startCancelled {
		return false // first what goes on there
	}
	var steps [3]int
	unready := 0
	for _, o := range s.slots {
		steps[o.replacing]++
		if !o.ready() && !o.done && !o.removing {
			unready++
		}
	}
	how := notReplacing
	switch {
	case sl.current == 0: // nothing to stop
		if steps[stopFirst] < max(s.cfg.Surge, s.cfg.Unavailable, 1) {
			how = stopFirst
		}
	case steps[startFirst] < s.cfg.Surge:
		how = startFirst
	case unready < s.cfg.Unavailable:
		how = stopFirst
	}
	if how == notReplacing {
		return false
	}
	sl.replacing, sl.to, sl.why = how, to, why
	if how == stopFirst && sl.current != 0 {
		sl.stopRequested = true
		s.do(Effect{Kind: Drain, Worker: sl.current, Slot: sl.n, Why: why})
		return true
	}
	if w := s.spareOf(to); w != nil {
		s.assign(sl, w, why)
	} else {
		sl.next = s.launch(sl.n, to, why)
	}
	return true
}

// replaceFailed takes note that the worker that was to have sl's place has ended before.
func (s *State) replaceFailed(sl *slot, w *worker) {
	why := sl.why
	sl.replacing = notReplacing
	switch {
	case why == ForRecycle:
		sl.failures++
		sl.retry = s.now + s.delay(sl.failures)
	case why == ForBack: // it keeps what it has; its replacement will be as before
		sl.gen = sl.to
	case why == ForRoll && w.phase != dying:
		s.turnBack(Effect{Kind: Rolled, Result: Failed, Worker: w.id, Slot: sl.n})
	}
	switch {
	case s.stopping && sl.startPending:
		s.failStart(sl, w.id)
	case s.stopping:
	case sl.startPending:
		s.startFor(sl)
	case sl.running && sl.current == 0 && why == ForRefill:
		s.slotEnded(sl, w.id)
	case sl.running && sl.current == 0: // it was stopped first
		sl.replacing, sl.to, sl.why = stopFirst, sl.gen, ForRefill
		sl.next = s.launch(sl.n, sl.gen, ForRefill)
	}
}

// abort ends the roll that goes on, or else the one that is next.
func (s *State) abort() {
	if s.roll != nil {
		s.turnBack(Effect{Kind: Rolled, Result: Cancelled})
		return
	}
	for i, ev := range s.waiting {
		if ev.Kind == Roll && !ev.Back {
			s.waiting = slices.Delete(s.waiting, i, i+1)
			s.do(Effect{Kind: Rolled, Result: Cancelled})
			return
		}
	}
}

// turnBack turns the roll round: the first failure is its result, what is on its way is
// given up, and what had been replaced gets its generation back.
func (s *State) turnBack(result Effect) {
	r := s.roll
	if r.back {
		return
	}
	bad := r.to
	r.answer, r.back, r.to = result, true, s.gen
	for _, sl := range s.inOrder() {
		if sl.replacing == notReplacing || sl.to != bad || bad == s.gen {
			continue
		}
		if sl.stopRequested { // its worker goes already
			sl.to, sl.why = sl.gen, ForRefill
			continue
		}
		s.discard(s.workers[sl.next], ForBack)
	}
}
