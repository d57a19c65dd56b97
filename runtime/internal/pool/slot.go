package pool

// This file is what the supervisor does to a slot, and what becomes of workers.

// start takes the supervisor's wish to have a slot up.
func (s *State) start(n int) {
	l := s.slots[n]
	if l == nil {
		l = &slot{n: n, gen: s.gen}
		s.slots[n] = l
	}
	if l.off { // no roll has touched it while it was down for good
		l.gen = s.gen
	}
	l.off, l.void, l.asked = false, false, true
	switch {
	case s.stopping || l.removing:
		s.failStart(l, 0)
	case l.cur != 0: // it came up while the supervisor was waiting
		s.bringUp(l)
	case l.next == 0:
		s.startFor(l)
	} // else what is on its way is what is wanted
}

// startFor has a worker started for l by the supervisor's wish.
func (s *State) startFor(l *slot) {
	if w := s.spareOf(l.gen); w != nil {
		s.appoint(l, w, ForStart)
		return
	}
	l.next = s.launch(l.n, l.gen, ForStart)
}

func (s *State) launch(slot int, gen Generation, why Why) Worker {
	s.last++
	w := &worker{id: s.last, gen: gen, slot: slot}
	if slot == Spare {
		w.phase = warming
	}
	s.workers[w.id] = w
	s.do(Effect{Kind: Launch, Worker: w.id, Slot: slot, Gen: gen, Why: why})
	return w.id
}

// bringUp answers the supervisor's start of a slot that has its worker.
func (s *State) bringUp(l *slot) {
	l.asked, l.up, l.going, l.struck = false, true, false, 0
	s.do(Effect{Kind: Up, Slot: l.n, Worker: l.cur, Gen: s.workers[l.cur].gen})
}

func (s *State) failStart(l *slot, because Worker) {
	l.asked, l.void, l.struck = false, false, 0
	s.do(Effect{Kind: Fail, Slot: l.n, Worker: because})
}

// cancel takes back the supervisor's wish.
func (s *State) cancel(n int) {
	l := s.slots[n]
	if l == nil || !l.asked {
		return
	}
	if l.step != still { // what is on its way was not started for the supervisor
		s.failStart(l, 0)
		return
	}
	if l.next == 0 {
		s.failStart(l, 0)
		return
	}
	l.void = true
	s.discard(s.workers[l.next], ForStart)
}

// ask has the slot's instance go, at the supervisor's wish.
func (s *State) ask(n int) {
	l := s.slots[n]
	if l == nil || !l.up || l.going {
		return
	}
	l.going = true
	switch {
	case l.removing:
		s.vacate(l)
	case l.cur == 0: // its worker was stopped first, and the next is not there yet
		s.discard(s.workers[l.next], ForStop)
		s.down(l, 0)
	default:
		s.do(Effect{Kind: Drain, Worker: l.cur, Slot: n, Why: ForStop, Brief: true})
	}
}

// slay kills the slot's instance.
func (s *State) slay(n int) {
	l := s.slots[n]
	if l == nil || !l.up {
		return
	}
	l.going = true
	if l.cur == 0 {
		s.discard(s.workers[l.next], ForStop)
		s.down(l, 0)
		return
	}
	s.do(Effect{Kind: Kill, Worker: l.cur, Slot: n, Why: ForStop})
}

// vacate takes the worker out of a slot that goes: it drains outside.
func (s *State) vacate(l *slot) {
	if l.next != 0 {
		if w := s.workers[l.next]; l.held {
			l.next, l.held = 0, false
			s.retire(w, ForScale, false)
		} else {
			s.discard(w, ForScale)
		}
	}
	if l.cur != 0 {
		w := s.workers[l.cur]
		l.cur = 0
		s.retire(w, ForScale, false)
	}
	if l.up {
		s.down(l, 0)
	}
}

// down tells the supervisor that its instance has ended.
func (s *State) down(l *slot, because Worker) {
	l.up, l.going, l.due = false, false, false
	if l.let {
		l.step, l.let = still, false // its worker went, but not for the step
	}
	s.do(Effect{Kind: Down, Slot: l.n, Worker: because})
	if l.held { // it was ready before its predecessor had gone
		l.cur, l.next, l.held = l.next, 0, false
	}
}

// retire has a ready worker, or a spare, drain outside.
func (s *State) retire(w *worker, why Why, brief bool) {
	if w.phase != draining {
		s.drains = append(s.drains, w.id)
	}
	w.phase = draining
	s.do(Effect{Kind: Drain, Worker: w.id, Slot: w.slot, Gen: w.gen, Why: why, Brief: brief})
}

// discard kills a worker that is not of use yet.
func (s *State) discard(w *worker, why Why) {
	if w == nil || w.phase == dying {
		return
	}
	w.phase = dying
	s.do(Effect{Kind: Kill, Worker: w.id, Slot: w.slot, Why: why})
}

// ready takes note of a worker that does its work.
func (s *State) ready(id Worker) {
	w := s.workers[id]
	if w == nil || w.phase != launching && w.phase != appointed {
		return
	}
	if w.phase == appointed {
		s.failures = 0
	}
	l := s.slots[w.slot]
	w.phase = holding
	switch {
	case l.going: // the supervisor has the one before stop
		l.held = true
	case l.asked:
		l.cur, l.next = id, 0
		s.bringUp(l)
	default:
		old := l.cur
		l.cur, l.next = id, 0
		if l.up {
			s.do(Effect{Kind: Swap, Slot: l.n, Worker: id, Old: old, Gen: w.gen, Why: l.why})
		}
		if old != 0 {
			s.retire(s.workers[old], l.why, false)
		}
	}
	if l.step != still {
		l.gen, l.step, l.let, l.due, l.failures = l.to, still, false, false, 0
	}
}

// ended takes note of a worker's end.
func (s *State) ended(ev Event) {
	w := s.workers[ev.Worker]
	if w == nil {
		return
	}
	delete(s.workers, w.id)
	l := s.slots[w.slot]
	switch {
	case w.phase == spare || w.phase == warming:
		s.spareFailed()
	case w.phase == draining:
		s.undrain(w.id)
	case l == nil || w.id != l.cur && w.id != l.next: // discarded
	case w.id == l.next && l.held:
		l.next, l.held = 0, false
	case w.id == l.next:
		s.notReady(l, w, ev.Struck)
	case l.up && l.going:
		l.cur = 0
		s.down(l, w.id)
	case l.let:
		l.cur, l.let = 0, false
		if s.stopping {
			l.step = still
			return
		}
		l.next = s.launch(l.n, l.to, l.why)
	default:
		s.crashed(l, w, ev.Final)
	}
}

// notReady takes note that the worker that was on its way to l has ended before.
func (s *State) notReady(l *slot, w *worker, struck bool) {
	l.next = 0
	if l.step != still {
		s.stepFailed(l, w)
		return
	}
	switch {
	case !l.asked:
	case w.phase == appointed && !s.stopping: // the spare was no good: that is not the slot's fault
		s.spareFailed()
		l.next = s.launch(l.n, l.gen, ForStart)
	case struck && w.phase == launching && l.struck < s.cfg.Struck && !s.stopping: // that says nothing of it
		l.struck++
		l.next = s.launch(l.n, l.gen, ForStart)
	default:
		s.failStart(l, w.id)
	}
}

// crashed takes note that a slot's worker has ended by itself.
func (s *State) crashed(l *slot, w *worker, final bool) {
	l.cur, l.due = 0, false
	if l.up {
		s.down(l, w.id)
	}
	if final {
		l.off = true
		if l.next != 0 {
			s.discard(s.workers[l.next], ForStop)
		}
	}
	if r := s.roll; r != nil && !r.back && w.gen == r.to && w.gen != s.gen {
		s.fail(Effect{Kind: Rolled, Outcome: Failed, Worker: w.id, Slot: l.n})
	}
}
