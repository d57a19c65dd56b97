package pool

import (
	"maps"
	"slices"
)

// spareOf returns the oldest warm spare of a generation, or nil.
func (s *State) spareOf(gen Generation) *worker {
	for _, id := range slices.Sorted(maps.Keys(s.workers)) {
		if w := s.workers[id]; w.phase == spare && w.gen == gen {
			return w
		}
	}
	return nil
}

// assign gives a spare a slot.
func (s *State) assign(sl *slot, w *worker, why Purpose) {
	w.phase, w.slot = assigned, sl.n
	sl.next = w.id
	s.do(Effect{Kind: Assign, Worker: w.id, Slot: sl.n, Gen: w.gen, Why: why})
}

// sparesWanted returns the number of missing spares.
func (s *State) sparesWanted() int {
	have := 0
	for _, w := range s.workers {
		if (w.phase == spare || w.phase == warming) && w.gen == s.gen {
			have++
		}
	}
	return s.cfg.Spares - have
}

// refillSpares launches missing spares and ends those of a generation before. It launches
// none while a slot waits for its worker, which comes first.
func (s *State) refillSpares() {
	if s.roll == nil {
		for _, id := range slices.Sorted(maps.Keys(s.workers)) {
			w := s.workers[id]
			switch {
			case w.gen == s.gen:
			case w.phase == spare:
				s.retire(w, ForSpare, true)
			case w.phase == warming:
				s.discard(w, ForSpare)
			}
		}
	}
	if s.now < s.retry {
		return
	}
	for _, sl := range s.slots {
		if sl.startPending {
			return
		}
	}
	for range s.sparesWanted() {
		s.launch(Spare, s.gen, ForSpare)
	}
}

// endTrials ends the workers that were lent.
func (s *State) endTrials(why Purpose) {
	for _, id := range slices.Sorted(maps.Keys(s.workers)) {
		switch w := s.workers[id]; {
		case w.phase == lent:
			s.retire(w, why, true)
		case w.slot == Trial && w.phase == launching:
			s.discard(w, why)
		}
	}
}

// spareFailed delays the next spare.
func (s *State) spareFailed() {
	s.failures++
	s.retry = s.now + s.delay(s.failures)
}
