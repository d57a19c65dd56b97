package pool

// This file is what the supervisor does to a slot, and what becomes of workers.

// start takes the supervisor's wish to have a slot up.
func (s *State) start(n int) {
	sl := s.slots[n]
	if sl == nil {
		sl = &slot{n: n, gen: s.gen}
		s.slots[n] = sl
	}
	if sl.done { // no roll has touched it while it was down for good
		sl.gen = s.gen
	}
	sl.done, sl.startCancelled, sl.startPending = false, false, true
	switch {
	case s.stopping || sl.removing:
		s.failStart(sl, 0)
	case sl.current != 0: // it came up while the supervisor was waiting
		s.startDone(sl)
	case sl.next == 0:
		s.startFor(sl)
	} // else what is on its way is what is wanted
}

// startFor has a worker started for sl by the supervisor's wish.
func (s *State) startFor(sl *slot) {
	if w := s.spareOf(sl.gen); w != nil {
		s.assign(sl, w, ForStart)
		return
	}
	sl.next = s.launch(sl.n, sl.gen, ForStart)
}

func (s *State) launch(slot int, gen Generation, why Purpose) WorkerSeq {
	s.last++
	w := &worker{id: s.last, gen: gen, slot: slot}
	if slot == Spare {
		w.phase = warming
	}
	s.workers[w.id] = w
	s.do(Effect{Kind: Launch, Worker: w.id, Slot: slot, Gen: gen, Why: why})
	return w.id
}

// startDone answers the supervisor's start of a slot that has its worker.
func (s *State) startDone(sl *slot) {
	sl.startPending, sl.running, sl.stopping, sl.outsideKills = false, true, false, 0
	s.do(Effect{Kind: Up, Slot: sl.n, Worker: sl.current, Gen: s.workers[sl.current].gen})
}

func (s *State) failStart(sl *slot, because WorkerSeq) {
	sl.startPending, sl.startCancelled, sl.outsideKills = false, false, 0
	s.do(Effect{Kind: Fail, Slot: sl.n, Worker: because})
}

// cancel takes back the supervisor's wish.
func (s *State) cancel(n int) {
	sl := s.slots[n]
	if sl == nil || !sl.startPending {
		return
	}
	if sl.replacing != notReplacing { // what is on its way was not started for the supervisor
		s.failStart(sl, 0)
		return
	}
	if sl.next == 0 {
		s.failStart(sl, 0)
		return
	}
	sl.startCancelled = true
	s.discard(s.workers[sl.next], ForStart)
}

// stopSlot has the slot's instance go, at the supervisor's wish.
func (s *State) stopSlot(n int) {
	sl := s.slots[n]
	if sl == nil || !sl.running || sl.stopping {
		return
	}
	sl.stopping = true
	switch {
	case sl.removing:
		s.clearSlot(sl)
	case sl.current == 0: // its worker was stopped first, and the next is not there yet
		s.discard(s.workers[sl.next], ForStop)
		s.slotEnded(sl, 0)
	default:
		s.do(Effect{Kind: Drain, Worker: sl.current, Slot: n, Why: ForStop, Brief: true})
	}
}

// killSlot kills the slot's instance.
func (s *State) killSlot(n int) {
	sl := s.slots[n]
	if sl == nil || !sl.running {
		return
	}
	sl.stopping = true
	if sl.current == 0 {
		s.discard(s.workers[sl.next], ForStop)
		s.slotEnded(sl, 0)
		return
	}
	s.do(Effect{Kind: Kill, Worker: sl.current, Slot: n, Why: ForStop})
}

// clearSlot takes the worker out of a slot that goes: it drains outside.
func (s *State) clearSlot(sl *slot) {
	if sl.next != 0 {
		if w := s.workers[sl.next]; sl.nextReady {
			sl.next, sl.nextReady = 0, false
			s.retire(w, ForScale, false)
		} else {
			s.discard(w, ForScale)
		}
	}
	if sl.current != 0 {
		w := s.workers[sl.current]
		sl.current = 0
		s.retire(w, ForScale, false)
	}
	if sl.running {
		s.slotEnded(sl, 0)
	}
}

// slotEnded tells the supervisor that its instance has ended.
func (s *State) slotEnded(sl *slot, because WorkerSeq) {
	sl.running, sl.stopping, sl.due = false, false, false
	if sl.stopRequested {
		sl.replacing, sl.stopRequested = notReplacing, false // its worker went, but not for the step
	}
	s.do(Effect{Kind: Down, Slot: sl.n, Worker: because})
	if sl.nextReady { // it was ready before its predecessor had gone
		sl.current, sl.next, sl.nextReady = sl.next, 0, false
	}
}

// retire has a ready worker, or a spare, drain outside.
func (s *State) retire(w *worker, why Purpose, brief bool) {
	if w.phase != draining {
		s.drains = append(s.drains, w.id)
	}
	w.phase = draining
	s.do(Effect{Kind: Drain, Worker: w.id, Slot: w.slot, Gen: w.gen, Why: why, Brief: brief})
}

// discard kills a worker that is not of use yet.
func (s *State) discard(w *worker, why Purpose) {
	if w == nil || w.phase == dying {
		return
	}
	w.phase = dying
	s.do(Effect{Kind: Kill, Worker: w.id, Slot: w.slot, Why: why})
}

// ready takes note of a worker that does its work.
func (s *State) ready(id WorkerSeq) {
	w := s.workers[id]
	if w == nil || w.phase != launching && w.phase != assigned {
		return
	}
	if w.phase == assigned {
		s.failures = 0
	}
	sl := s.slots[w.slot]
	w.phase = active
	switch {
	case sl.stopping: // the supervisor has the one before stop
		sl.nextReady = true
	case sl.startPending:
		sl.current, sl.next = id, 0
		s.startDone(sl)
	default:
		old := sl.current
		sl.current, sl.next = id, 0
		if sl.running {
			s.do(Effect{Kind: Swap, Slot: sl.n, Worker: id, Old: old, Gen: w.gen, Why: sl.why})
		}
		if old != 0 {
			s.retire(s.workers[old], sl.why, false)
		}
	}
	if sl.replacing != notReplacing {
		sl.gen, sl.replacing, sl.stopRequested, sl.due, sl.failures = sl.to, notReplacing, false, false, 0
	}
}

// ended takes note of a worker's end.
func (s *State) ended(ev Event) {
	w := s.workers[ev.Worker]
	if w == nil {
		return
	}
	delete(s.workers, w.id)
	sl := s.slots[w.slot]
	switch {
	case w.phase == spare || w.phase == warming:
		s.spareFailed()
	case w.phase == draining:
		s.drained(w.id)
	case sl == nil || w.id != sl.current && w.id != sl.next: // discarded
	case w.id == sl.next && sl.nextReady:
		sl.next, sl.nextReady = 0, false
	case w.id == sl.next:
		s.notReady(sl, w, ev.KilledOutside)
	case sl.running && sl.stopping:
		sl.current = 0
		s.slotEnded(sl, w.id)
	case sl.stopRequested:
		sl.current, sl.stopRequested = 0, false
		if s.stopping {
			sl.replacing = notReplacing
			return
		}
		sl.next = s.launch(sl.n, sl.to, sl.why)
	default:
		s.crashed(sl, w, ev.Final)
	}
}

// notReady takes note that the worker that was on its way to sl has ended before.
func (s *State) notReady(sl *slot, w *worker, struck bool) {
	sl.next = 0
	if sl.replacing != notReplacing {
		s.replaceFailed(sl, w)
		return
	}
	switch {
	case !sl.startPending:
	case w.phase == assigned && !s.stopping: // the spare was no good: that is not the slot's fault
		s.spareFailed()
		sl.next = s.launch(sl.n, sl.gen, ForStart)
	case struck && w.phase == launching && sl.outsideKills < s.cfg.KillRetries && !s.stopping: // that says nothing of it
		sl.outsideKills++
		sl.next = s.launch(sl.n, sl.gen, ForStart)
	default:
		s.failStart(sl, w.id)
	}
}

// crashed takes note that a slot's worker has ended by itself.
func (s *State) crashed(sl *slot, w *worker, final bool) {
	sl.current, sl.due = 0, false
	if sl.running {
		s.slotEnded(sl, w.id)
	}
	if final {
		sl.done = true
		if sl.next != 0 {
			s.discard(s.workers[sl.next], ForStop)
		}
	}
	if r := s.roll; r != nil && !r.back && w.gen == r.to && w.gen != s.gen {
		s.turnBack(Effect{Kind: Rolled, Result: Failed, Worker: w.id, Slot: sl.n})
	}
}
