package pool

import "slices"

// undrain forgets a worker that has drained.
func (s *State) undrain(id Worker) {
	s.drains = slices.DeleteFunc(s.drains, func(w Worker) bool { return w == id })
}

// capDrains cuts those that drain longest when too many do.
func (s *State) capDrains() {
	n := 0
	for _, id := range s.drains {
		if !s.workers[id].cut {
			n++
		}
	}
	for _, id := range s.drains {
		if n <= s.cfg.Draining {
			return
		}
		if w := s.workers[id]; !w.cut {
			w.cut = true
			n--
			s.do(Effect{Kind: Cut, Worker: id, Slot: w.slot, Why: ForCap})
		}
	}
}
