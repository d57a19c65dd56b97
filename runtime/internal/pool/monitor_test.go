package pool

import "testing"

// monitor plays a State's part of the world just far enough to check, after each
// step, what doc.go promises. It knows only events and effects.
type monitor struct {
	t   testing.TB
	cfg Config
	s   *State

	alive    map[WorkerSeq]string // launched and not ended: way, slot, spare, drain, dying
	inSlot   map[int]WorkerSeq    // ready in the slot
	launched WorkerSeq
	slots    map[int]bool
	stopped  bool
	gone     bool
	asked    map[int]bool // by the supervisor
	begun    int          // rolls asked for and not answered
	scales   int
	own      map[int]bool // slots whose worker was due, and has ended by itself
}

func (m *monitor) begin(cfg Config) {
	*m = monitor{
		t: m.t, cfg: cfg, s: New(cfg, 1),
		alive: map[WorkerSeq]string{}, inSlot: map[int]WorkerSeq{}, slots: map[int]bool{}, asked: map[int]bool{}, own: map[int]bool{},
	}
}

func (m *monitor) step(now Time, ev Event) []Effect {
	m.t.Helper()
	switch ev.Kind {
	case Start:
		m.slots[ev.Slot] = true
	case Roll:
		m.begun++
	case Scale:
		m.scales++
	case Stop:
		m.stopped = true
	case Ended:
		for n, sl := range m.s.slots {
			m.own[n] = m.own[n] || sl.current == ev.Worker && sl.due && ev.Orderly
		}
		delete(m.alive, ev.Worker)
		for n, w := range m.inSlot {
			if w == ev.Worker {
				delete(m.inSlot, n)
			}
		}
	default:
	}
	out := m.s.Step(now, ev)
	if testing.Verbose() {
		m.t.Logf("%v %v slot %d w%d gen %d size %d: %v", now, ev.Kind, ev.Slot, ev.Worker, ev.Gen, ev.Size, out)
	}
	for _, e := range out {
		m.effect(e)
	}
	m.check()
	return out
}

func (m *monitor) effect(e Effect) {
	m.t.Helper()
	if m.gone {
		m.t.Errorf("%v after gone", e)
	}
	switch e.Kind {
	case Launch:
		if m.stopped {
			m.t.Errorf("%v after stop", e)
		}
		if e.Worker != m.launched+1 {
			m.t.Errorf("%v: not the next number", e)
		}
		m.launched = e.Worker
		m.alive[e.Worker] = "way"
	case Assign, Up, Swap, Drain, ForceDrain, Kill, Hold:
		if _, ok := m.alive[e.Worker]; !ok {
			m.t.Errorf("%v: that worker is not there", e)
		}
	case Rolled:
		m.begun--
	case Scaled:
		m.scales--
	case Gone:
		m.gone = true
		if len(m.alive) > 0 {
			m.t.Errorf("gone, with %d workers", len(m.alive))
		}
	case Fail, Down, Add, Remove, Wake:
	}
}

// check looks at the state: each worker is somewhere, and there are not too many.
func (m *monitor) check() {
	m.t.Helper()
	s := m.s
	if len(s.workers) != len(m.alive) {
		m.t.Errorf("%d workers are known, %d alive", len(s.workers), len(m.alive))
	}
	places := map[WorkerSeq]int{}
	let, slots := 0, 0
	for _, sl := range s.slots {
		slots++
		if sl.current != 0 {
			places[sl.current]++
			delete(m.own, sl.n)
			if w := s.workers[sl.current]; w == nil || w.phase != active {
				m.t.Errorf("slot %d has w%d, which is no ready worker", sl.n, sl.current)
			}
		}
		if sl.next != 0 {
			places[sl.next]++
			if s.workers[sl.next] == nil {
				m.t.Errorf("slot %d waits for w%d, which is not there", sl.n, sl.next)
			}
		}
		if sl.replacing == stopFirst && !m.own[sl.n] && (sl.stopRequested || sl.running && sl.current == 0) {
			let++
		}
		if sl.replacing != notReplacing && sl.next == 0 && !sl.stopRequested {
			m.t.Errorf("slot %d: nothing happens in its step", sl.n)
		}
		if sl.running && sl.current == 0 && sl.next == 0 && !s.stopping {
			m.t.Errorf("slot %d is running without a worker", sl.n)
		}
		if sl.startPending && sl.next == 0 {
			m.t.Errorf("slot %d: its start waits for no worker", sl.n)
		}
	}
	if let > m.cfg.Unavailable {
		m.t.Errorf("%d slots are without a worker by our doing", let)
	}
	busy := 0
	for id, w := range s.workers {
		switch w.phase {
		case draining, lent:
			places[id]++
		case spare, warming:
			places[id]++
			busy++
		case launching, assigned, active:
			if sl := s.slots[w.slot]; w.slot == Trial {
				places[id]++
			} else if sl.current != id || !sl.stopRequested && !sl.stopping { // else it has been asked to end
				busy++
			}
		case dying:
			places[id] = 1
		}
		if places[id] != 1 {
			m.t.Errorf("w%d has %d places", id, places[id])
		}
	}
	if limit := slots + m.cfg.Surge + m.cfg.Spares + s.leftOver(); busy > limit {
		m.t.Errorf("%d workers, and there may be %d", busy, limit)
	}
	uncut := 0
	for _, id := range s.drains {
		if !s.workers[id].forced {
			uncut++
		}
	}
	if uncut > m.cfg.Draining && !s.stopping {
		m.t.Errorf("%d drain, and %d may", uncut, m.cfg.Draining)
	}
}

// leftOver is how many spares of a generation before there are: while a roll is on
// they stay.
func (s *State) leftOver() (n int) {
	for _, w := range s.workers {
		if (w.phase == spare || w.phase == warming) && w.gen != s.gen {
			n++
		}
	}
	return n
}
