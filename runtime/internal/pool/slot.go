package pool

// This file has what the supervisor asks of a slot, and what happens to its workers.

// start handles the supervisor's start of a slot.
func (s *State) start(n int) {
	sl := s.slots[n]
	if sl == nil {
		sl = &slot{n: n, gen: s.gen}
		s.slots[n] = sl
	}
	if sl.done { // no roll has touched it since it ended for good
		sl.gen = s.gen
	}
	sl.done, sl.startCancelled, sl.startPending = false, false, true
	switch {
	case s.stopping || sl.removing:
		s.failStart(sl, 0)
	case sl.current != 0: // it came up while the supervisor waited for a delay
		s.startDone(sl)
	case sl.next == 0:
		s.give(sl, sl.gen, ForStart)
	} // else the worker that is on its way will do
}

// give gives sl its next worker, a spare or a new one.
func (s *State) give(sl *slot, gen Generation, why Purpose) {
	if w := s.spareOf(gen); w != nil {
		s.assign(sl, w, why)
		return
	}
	sl.next = s.launch(sl.n, gen, why)
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

// cancel handles the supervisor's cancelling of a start.
func (s *State) cancel(n int) {
	sl := s.slots[n]
	if sl == nil || !sl.startPending {
		return
	}
	if sl.replacing != notReplacing { // the worker that is on its way was not started for the supervisor
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

// stopSlot stops the slot's instance, as the supervisor asked.
func (s *State) stopSlot(n int) {
	sl := s.slots[n]
	if sl == nil || !sl.running || sl.stopping {
		return
	}
	sl.stopping = true
	switch {
	case sl.removing:
		s.clearSlot(sl)
	case sl.current == 0: // its worker was stopped first, and the next one is not ready
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

// clearSlot takes the workers out of a slot that is removed: they drain outside.
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
		sl.replacing, sl.stopRequested = notReplacing, false // its worker ended, but not for the replacement
	}
	s.do(Effect{Kind: Down, Slot: sl.n, Worker: because})
	if sl.nextReady { // it was ready before its predecessor had ended
		s.occupy(sl, s.workers[sl.next])
	}
}

// occupy makes w, which is ready, the worker of sl.
func (s *State) occupy(sl *slot, w *worker) {
	sl.current, sl.next, sl.nextReady = w.id, 0, false
	if w.due {
		sl.due, sl.once, sl.hold = true, false, 0
	}
}

// retire drains a ready worker, or a spare, outside the slots.
func (s *State) retire(w *worker, why Purpose, brief bool) {
	if w.phase != draining {
		s.drains = append(s.drains, w.id)
	}
	w.phase = draining
	s.do(Effect{Kind: Drain, Worker: w.id, Slot: w.slot, Gen: w.gen, Why: why, Brief: brief})
}

// discard kills a worker that is not ready yet.
func (s *State) discard(w *worker, why Purpose) {
	if w == nil || w.phase == dying {
		return
	}
	w.phase = dying
	s.do(Effect{Kind: Kill, Worker: w.id, Slot: w.slot, Why: why})
}

// ready handles a worker that has become ready.
func (s *State) ready(id WorkerSeq) {
	w := s.workers[id]
	if w == nil || w.phase != launching && w.phase != assigned {
		return
	}
	if w.phase == assigned {
		s.failures = 0
	}
	if w.slot == Trial {
		w.phase = lent
		return
	}
	sl := s.slots[w.slot]
	w.phase, w.since = active, s.now-sl.age
	sl.age = 0
	if sl.replacing != notReplacing {
		sl.gen, sl.replacing, sl.stopRequested, sl.due, sl.failures = sl.to, notReplacing, false, false, 0
	}
	switch {
	case sl.stopping: // the supervisor is stopping the worker before it
		sl.nextReady = true
	case sl.startPending:
		s.occupy(sl, w)
		s.startDone(sl)
	default:
		old := sl.current
		s.occupy(sl, w)
		if sl.running {
			s.do(Effect{Kind: Swap, Slot: sl.n, Worker: id, Old: old, Gen: w.gen, Why: sl.why})
		}
		if old != 0 {
			s.retire(s.workers[old], sl.why, false)
		}
	}
}

// ended handles a worker's end.
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
	case sl.due && sl.running && ev.Orderly && !ev.Final && !sl.removing && !s.stopping:
		s.endedDue(sl)
	default:
		s.crashed(sl, w, ev.Final)
	}
}

// notReady handles the end of a worker on its way to sl.
func (s *State) notReady(sl *slot, w *worker, struck bool) {
	sl.next = 0
	if sl.replacing != notReplacing {
		s.replaceFailed(sl, w)
		return
	}
	switch {
	case !sl.startPending:
	case w.phase == assigned && !s.stopping: // the spare failed: that does not count against the slot
		s.spareFailed()
		sl.next = s.launch(sl.n, sl.gen, ForStart)
	case struck && w.phase == launching && sl.outsideKills < s.cfg.KillRetries && !s.stopping: // its own code did not fail
		sl.outsideKills++
		sl.next = s.launch(sl.n, sl.gen, ForStart)
	default:
		s.failStart(sl, w.id)
	}
}

// crashed handles the end of a slot's worker that was not asked to end.
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
