package pool

import "slices"

// drained deletes a worker that has drained from the list.
func (s *State) drained(id WorkerSeq) {
	s.drains = slices.DeleteFunc(s.drains, func(w WorkerSeq) bool { return w == id })
}

// capDrains forces the workers that have drained longest to end when too many drain.
func (s *State) capDrains() {
	n := 0
	for _, id := range s.drains {
		if !s.workers[id].forced {
			n++
		}
	}
	for _, id := range s.drains {
		if n <= s.cfg.Draining {
			return
		}
		if w := s.workers[id]; !w.forced {
			w.forced = true
			n--
			s.do(Effect{Kind: ForceDrain, Worker: id, Slot: w.slot, Why: ForCap})
		}
	}
}
