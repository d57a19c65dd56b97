package pool

import (
	"maps"
	"slices"
)

// workerPhase is the state of a worker.
type workerPhase uint8

const (
	launching workerPhase = iota // on its way to a slot
	assigned                     // a spare on its way to a slot
	warming                      // on its way to be a spare
	spare                        // warm, without a slot
	active                       // a slot's ready worker
	draining                     // asked to end; in no slot
	dying                        // killed before it was ready
	lent                         // ready, and beside the slots
)

// worker is the record of a worker until it has ended.
type worker struct {
	id     WorkerSeq
	gen    Generation
	slot   int
	phase  workerPhase
	forced bool // draining, and forced to end
	due    bool // to be recycled, once it is a slot's worker
	since  Time // when it became active
}

// replaceMode is how a slot's worker is being replaced.
type replaceMode uint8

const (
	notReplacing replaceMode = iota
	startFirst               // the new one first
	stopFirst                // the old one first
)

// slot is one place. Its start is under way while startPending or next is set.
type slot struct {
	n              int
	gen            Generation // of its next worker, if the supervisor starts it
	running        bool       // the supervisor has an instance of it
	startPending   bool       // the supervisor waits for its start
	startCancelled bool       // that start is cancelled
	stopping       bool       // the supervisor has asked the instance to stop

	current   WorkerSeq // its ready worker, even before the supervisor knows of it
	next      WorkerSeq // on its way to be current
	nextReady bool      // next is ready and waits for the end of current, which is stopping

	replacing     replaceMode
	why           Purpose    // of the replacement
	to            Generation // of the replacement
	stopRequested bool       // the replacement has asked current to end

	done         bool // ended for good, by its restart type
	removing     bool
	due          bool // to be recycled
	once         bool // due: only one try
	early        int  // braked recyclings in a row that were early
	hold         Time // of due: not before then
	failures     int  // of recycling, in a row
	retry        Time
	outsideKills int // workers of this start that were killed from outside

	age Time // how long its worker was ready in the image of the program before; of its first start
}

// ready reports whether the slot has a ready worker that has not been asked to end.
func (s *slot) ready() bool { return s.current != 0 && !s.stopRequested && !s.stopping }

// State is a pool's workers and slots.
type State struct {
	cfg     Config
	gen     Generation // of spares, of new slots, and of slots that no roll has touched
	slots   map[int]*slot
	workers map[WorkerSeq]*worker
	last    WorkerSeq

	roll    *roll
	scale   *scaling
	waiting []Event // rolls and scalings that wait for their turn

	drains   []WorkerSeq // in the order in which they began
	failures int         // of spares, in a row
	retry    Time        // of spares
	wake     Time        // the latest Wake; 0: none
	stopping bool
	gone     bool

	now Time
	out []Effect
}

// New returns a pool without slots: Start makes them. cfg is complete.
func New(cfg Config, gen Generation) *State {
	return &State{cfg: cfg, gen: gen, slots: map[int]*slot{}, workers: map[WorkerSeq]*worker{}}
}

// Step takes an event and returns what is to be done about it, in order.
func (s *State) Step(now Time, ev Event) []Effect {
	s.now, s.out = now, nil
	switch ev.Kind {
	case Start:
		s.start(ev.Slot)
	case Cancel:
		s.cancel(ev.Slot)
	case StopSlot:
		s.stopSlot(ev.Slot)
	case KillSlot:
		s.killSlot(ev.Slot)
	case Warmed:
		if w := s.workers[ev.Worker]; w != nil && w.phase == warming {
			w.phase = spare
		}
	case Ready:
		s.ready(ev.Worker)
	case Ended:
		s.ended(ev)
	case Roll, Scale:
		s.waiting = append(s.waiting, ev)
	case Abort:
		s.abort()
	case Added:
		s.added(ev)
	case Removed:
		s.removed(ev.Slot)
	case Due:
		s.markDue(ev)
	case Lend:
		if !s.stopping {
			s.launch(Trial, s.gen, ForTrial)
		}
	case Recall:
		s.endTrials(ForTrial)
	case Tick:
		s.wake = 0
	case Stop:
		s.stop()
	case KillAll:
		for _, id := range slices.Sorted(maps.Keys(s.workers)) {
			s.do(Effect{Kind: Kill, Worker: id, Slot: s.workers[id].slot})
		}
	}
	s.settle()
	return s.out
}

func (s *State) do(e Effect) { s.out = append(s.out, e) }

// settle does what can be done now. It looks at the state alone: which event made it
// possible does not matter.
func (s *State) settle() {
	if s.stopping {
		if len(s.workers) == 0 && !s.gone && !slices.ContainsFunc(s.inOrder(), func(sl *slot) bool { return sl.running || sl.startPending }) {
			s.gone = true
			s.do(Effect{Kind: Gone})
		}
		return
	}
	s.next()
	s.advance()
	s.recycle()
	s.next()
	s.refillSpares()
	s.capDrains()
	s.setWake()
}

// next begins the next roll or scaling, unless one is under way.
func (s *State) next() {
	for len(s.waiting) > 0 && s.roll == nil && s.scale == nil {
		ev := s.waiting[0]
		s.waiting = s.waiting[1:]
		if ev.Kind == Roll {
			s.roll = &roll{to: ev.Gen, back: ev.Back, share: ev.Share, answer: Effect{Kind: Rolled}}
			s.advance()
		} else {
			s.rescale(ev)
		}
	}
}

// Active reports whether a worker has a slot and is ready.
func (s *State) Active(id WorkerSeq) bool {
	w := s.workers[id]
	return w != nil && w.phase == active
}

// setWake asks for a Tick when the earliest delay is over.
func (s *State) setWake() {
	var at Time
	sooner := func(t Time) {
		if t > s.now && (at == 0 || t < at) {
			at = t
		}
	}
	if s.sparesWanted() > 0 {
		sooner(s.retry)
	}
	for _, sl := range s.slots {
		if sl.due {
			sooner(max(sl.retry, sl.hold))
		}
	}
	if at != s.wake && at != 0 {
		s.do(Effect{Kind: Wake, At: at})
	}
	s.wake = at
}

// delay returns the wait after the n-th consecutive failure.
func (s *State) delay(n int) Time {
	d := s.cfg.Retry
	for range n - 1 {
		if d *= 2; d >= s.cfg.MaxRetry {
			return s.cfg.MaxRetry
		}
	}
	return d
}

// inOrder returns the slots by number, which gives effects a fixed order.
func (s *State) inOrder() []*slot {
	out := make([]*slot, 0, len(s.slots))
	for _, n := range slices.Sorted(maps.Keys(s.slots)) {
		out = append(out, s.slots[n])
	}
	return out
}

// stop ends everything but the slots' workers, which the supervisor stops.
func (s *State) stop() {
	if s.stopping {
		return
	}
	s.stopping = true
	if s.roll != nil {
		if s.roll.answer.Result == Done {
			s.roll.answer.Result = Stopped
		}
		s.do(s.roll.answer)
		s.roll = nil
	}
	if s.scale != nil {
		s.do(Effect{Kind: Scaled, Result: Stopped})
		s.scale = nil
	}
	for _, ev := range s.waiting {
		kind := Rolled
		if ev.Kind == Scale {
			kind = Scaled
		}
		s.do(Effect{Kind: kind, Result: Stopped})
	}
	s.waiting = nil
	for _, id := range slices.Sorted(maps.Keys(s.workers)) {
		w := s.workers[id]
		sl := s.slots[w.slot]
		switch w.phase {
		case spare, draining:
			s.retire(w, ForStop, true)
		case warming:
			s.discard(w, ForStop)
		case lent:
			s.retire(w, ForStop, true)
		case launching, assigned:
			if sl == nil || sl.replacing != notReplacing {
				s.discard(w, ForStop)
			} // else the supervisor cancels its start
		case active:
			switch {
			case sl.next == id:
				sl.next, sl.nextReady = 0, false
				s.retire(w, ForStop, true)
			case !sl.running:
				sl.current = 0
				s.retire(w, ForStop, true)
			}
		case dying:
		}
	}
}
