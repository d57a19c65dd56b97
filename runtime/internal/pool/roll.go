package pool

import "slices"

// roll is a reload under way.
type roll struct {
	to     Generation
	back   bool   // it undoes a roll: to is the generation before
	share  int    // at most so many slots are to have the generation, unless it goes back; 0 = all
	answer Effect // Rolled
}

// advance begins the replacements that the roll may begin now, and ends the roll when all
// slots are done.
func (s *State) advance() {
	r := s.roll
	if r == nil {
		return
	}
	why := ForRoll
	if r.back {
		why = ForBack
	}
	partial := r.share > 0 && !r.back
	open, left := false, len(s.slots)
	if partial {
		left = r.share
		for _, sl := range s.slots {
			if sl.gen == r.to || sl.replacing != notReplacing {
				left--
			}
		}
	}
	// Slots without a ready worker come first: that costs no capacity, and the new
	// generation may cure them.
	for _, up := range []bool{false, true} {
		for _, sl := range s.inOrder() {
			if sl.replacing != notReplacing {
				open = true
				continue
			}
			if sl.gen == r.to || sl.done || sl.removing || left <= 0 {
				continue
			}
			open = true
			if sl.ready() == up && s.beginReplace(sl, r.to, why) {
				left--
			}
		}
	}
	if !open {
		if s.roll = nil; !partial {
			s.gen = r.to
		}
		s.do(r.answer)
	}
}

// beginReplace begins to replace sl's worker if the limits allow it now, and reports
// whether it did.
func (s *State) beginReplace(sl *slot, to Generation, why Purpose) bool {
	if sl.next != 0 || sl.stopping || sl.startCancelled {
		return false // something else is under way there
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
	s.give(sl, to, why)
	return true
}

// replaceFailed handles the end of a replacement that was not ready yet.
func (s *State) replaceFailed(sl *slot, w *worker) {
	why := sl.why
	sl.replacing = notReplacing
	switch {
	case why == ForRecycle && sl.once:
		sl.due = false
	case why == ForRecycle, why == ForBack:
		sl.failures++
		sl.retry = s.now + s.delay(sl.failures)
		if why == ForBack { // it keeps its worker for now
			sl.gen, sl.due, sl.once, sl.hold = sl.to, sl.current != 0, false, 0
		}
	case why == ForRoll && w.phase != dying:
		s.turnBack(Effect{Kind: Rolled, Result: Failed, Worker: w.id, Slot: sl.n})
	}
	switch {
	case s.stopping && sl.startPending:
		s.failStart(sl, w.id)
	case s.stopping:
	case sl.startPending:
		s.give(sl, sl.gen, ForStart)
	case sl.running && sl.current == 0 && why == ForRefill:
		s.slotEnded(sl, w.id)
	case sl.running && sl.current == 0: // its worker was stopped first
		sl.replacing, sl.to, sl.why = stopFirst, sl.gen, ForRefill
		sl.next = s.launch(sl.n, sl.gen, ForRefill)
	}
}

// abort fails the current roll, or else the next one.
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

// turnBack reverses the roll: its answer is the first failure, replacements under way are
// given up, and slots that had been replaced get a worker of the generation before.
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
		if sl.stopRequested { // its worker has been asked to end already
			sl.to, sl.why = sl.gen, ForRefill
			continue
		}
		s.discard(s.workers[sl.next], ForBack)
	}
}
