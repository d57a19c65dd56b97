package pool

import "slices"

// roll is a reload on its way through the slots.
type roll struct {
	to     Generation
	back   bool   // to is what they come from
	result Effect // Rolled
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
		for _, l := range s.inOrder() {
			if l.step != still {
				open = true
				continue
			}
			if l.gen == r.to || l.off || l.removing {
				continue
			}
			open = true
			if l.ready() == up {
				s.begin(l, r.to, why)
			}
		}
	}
	if !open {
		s.gen, s.roll = r.to, nil
		s.do(r.result)
	}
}

// begin gives l another worker if it may be now.
func (s *State) begin(l *slot, to Generation, why Why) bool {
	if l.next != 0 || l.going || l.void {
		return false // first what goes on there
	}
	var steps [3]int
	unready := 0
	for _, o := range s.slots {
		steps[o.step]++
		if !o.ready() && !o.off && !o.removing {
			unready++
		}
	}
	how := still
	switch {
	case l.cur == 0: // nothing to stop
		if steps[stopFirst] < max(s.cfg.Surge, s.cfg.Unavailable, 1) {
			how = stopFirst
		}
	case steps[surge] < s.cfg.Surge:
		how = surge
	case unready < s.cfg.Unavailable:
		how = stopFirst
	}
	if how == still {
		return false
	}
	l.step, l.to, l.why = how, to, why
	if how == stopFirst && l.cur != 0 {
		l.let = true
		s.do(Effect{Kind: Drain, Worker: l.cur, Slot: l.n, Why: why})
		return true
	}
	if w := s.spareOf(to); w != nil {
		s.appoint(l, w, why)
	} else {
		l.next = s.launch(l.n, to, why)
	}
	return true
}

// stepFailed takes note that the worker that was to have l's place has ended before.
func (s *State) stepFailed(l *slot, w *worker) {
	why := l.why
	l.step = still
	switch {
	case why == ForRecycle:
		l.failures++
		l.retry = s.now + s.delay(l.failures)
	case why == ForBack: // it keeps what it has; its replacement will be as before
		l.gen = l.to
	case why == ForRoll && w.phase != dying:
		s.fail(Effect{Kind: Rolled, Outcome: Failed, Worker: w.id, Slot: l.n})
	}
	switch {
	case s.stopping && l.asked:
		s.failStart(l, w.id)
	case s.stopping:
	case l.asked:
		s.startFor(l)
	case l.up && l.cur == 0 && why == ForRefill:
		s.down(l, w.id)
	case l.up && l.cur == 0: // it was stopped first
		l.step, l.to, l.why = stopFirst, l.gen, ForRefill
		l.next = s.launch(l.n, l.gen, ForRefill)
	}
}

// abort ends the roll that goes on, or else the one that is next.
func (s *State) abort() {
	if s.roll != nil {
		s.fail(Effect{Kind: Rolled, Outcome: Cancelled})
		return
	}
	for i, ev := range s.waiting {
		if ev.Kind == Roll && !ev.Back {
			s.waiting = slices.Delete(s.waiting, i, i+1)
			s.do(Effect{Kind: Rolled, Outcome: Cancelled})
			return
		}
	}
}

// fail turns the roll round: the first failure is its result, what is on its way is
// given up, and what had been replaced gets its generation back.
func (s *State) fail(result Effect) {
	r := s.roll
	if r.back {
		return
	}
	bad := r.to
	r.result, r.back, r.to = result, true, s.gen
	for _, l := range s.inOrder() {
		if l.step == still || l.to != bad || bad == s.gen {
			continue
		}
		if l.let { // its worker goes already
			l.to, l.why = l.gen, ForRefill
			continue
		}
		s.discard(s.workers[l.next], ForBack)
	}
}
