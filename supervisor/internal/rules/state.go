package rules

// Work is what occupies the supervisor as a whole.
type Work uint8

// The kinds of work. While there is any but Idle, requests and unexpected
// ends wait in State.Deferred, as they would in the mailbox of a busy OTP
// supervisor; with Idle each child goes its own way.
const (
	Idle     Work = iota
	Fresh         // Begin has not come
	InitWork      // starting the declared children
	Group         // restarting a group: stop in reverse order, start in order
	StopWork      // stopping everything
	Ended         // Terminated was returned
)

// State is everything a supervisor knows: plain data, changed only by Step.
type State struct {
	Flags    Flags
	Children map[Key]*Child
	IDs      map[string]Key
	Order    Order
	LastKey  Key
	LastRun  uint64
	Window   Window
	LastUp   Time // the latest end of an instance that was up; zero: none has ended
	Excess   int  // Persist: attempts in a row that were more than Max

	Specs, Live, Supers int // for count_children: kept specs, running, labelled supervisor
	Significant         int // significant children that are not Down
	Starts              int // children that are Starting
	Work                Work
	Deferred            []Event
	Trigger             Key  // Group: whose failure it is
	TriggerKnown        bool // Group: Trigger's Known, restored if its start fails
	Bound               int  // Group: position of the first child of the group
	Next                int  // Group, InitWork: position of the next child to start; -1: stopping
	Turn                Key  // Group, InitWork: the child being started
	Pause               bool // Group: wait for the back-off delay before starting
	PauseUntil          Time // Group: the end of that delay
	Why                 Why  // StopWork, Ended: the reason
	FailedChild         Key  // StopWork, Ended: whose failure it was, or 0
	out                 []Effect
	now                 Time
	rand                uint64
}

// New returns the state of a supervisor that has not begun. The children are started in the order
// given; for a Dynamic supervisor there must be none. The caller has validated flags and children.
func New(flags Flags, children []Params) *State {
	s := &State{
		Flags:    flags,
		Children: make(map[Key]*Child, len(children)),
		IDs:      make(map[string]Key, len(children)),
		Work:     Fresh,
	}
	for _, p := range children {
		s.store(s.add(p))
	}
	return s
}

// Step takes one event at time now, which must not run backwards, and returns
// what must be done, in order. The result is borrowed until the next call.
func (s *State) Step(now Time, ev Event) []Effect {
	s.out, s.now, s.rand = s.out[:0], now, ev.Rand
	s.handle(&ev)
	for s.Work == Idle && len(s.Deferred) > 0 {
		ev = s.Deferred[0]
		s.Deferred = s.Deferred[1:]
		s.handle(&ev)
	}
	if len(s.Deferred) == 0 {
		s.Deferred = nil
	}
	return s.out
}

func (s *State) handle(ev *Event) {
	if s.Work == Ended {
		if ev.Kind == Started { // of a start that was abandoned
			s.emit(Effect{Kind: KillInstance, Key: ev.Key, Run: ev.Run})
		}
		return
	}
	switch ev.Kind {
	case Begin:
		if s.Work == Fresh {
			s.Work, s.Next = InitWork, 0
			s.advance()
		}
	case Started, StartFailed, Ignored:
		s.startEnded(ev)
	case Exited:
		s.exited(ev)
	case Replaced:
		if c := s.Children[ev.Key]; c != nil {
			c.Inc++
			c.UpSince = s.now
		}
	case Timer:
		s.timer(ev)
	case Request:
		s.request(ev)
	case Stop:
		s.stop(ByOrder, 0)
	case Kill:
		s.kill()
	case Await:
		s.await(ev)
	}
}

// emit appends an effect.
func (s *State) emit(e Effect) { s.out = append(s.out, e) }

func (s *State) report(ctx Context, c *Child) {
	s.emit(Effect{Kind: Report, Context: ctx, Key: c.Key, Run: c.Run, Inc: c.Inc, Known: c.Known})
}

func (s *State) answer(from uint64, r Reply, k Key) {
	if from != 0 {
		s.emit(Effect{Kind: Answer, From: from, Reply: r, Key: k})
	}
}

// setTimer arms the child's timer, or clears it with zero.
func (s *State) setTimer(c *Child, at Time) {
	if c.At == 0 && at == 0 {
		return
	}
	c.At = at
	s.emit(Effect{Kind: SetTimer, Key: c.Key, At: at})
}

// setPhase keeps the counters and the order's index in step with the phase.
func (s *State) setPhase(c *Child, p Phase) {
	was := c.Phase
	if was == p {
		return
	}
	c.Phase = p
	s.emit(Effect{Kind: Moved, Key: c.Key})
	if live := func(p Phase) bool { return p == Running || p == Stopping }; live(was) != live(p) {
		if live(p) {
			s.Live++
		} else {
			s.Live--
		}
	}
	if p == Starting {
		s.Starts++
	} else if was == Starting {
		s.Starts--
	}
	if (was == Down) != (p == Down) {
		d := 1
		if p == Down {
			d = -1
			s.Order.Active.clear(c.Pos)
		} else {
			s.Order.Active.set(c.Pos)
		}
		if c.Significant {
			s.Significant += d
		}
	}
}

// add makes a record at the end of the order. It does not count as a spec before it is stored.
func (s *State) add(p Params) *Child {
	if s.Order.sparse() {
		s.compact()
	}
	s.LastKey++
	c := &Child{Params: p, Key: s.LastKey, New: true}
	c.Pos = s.Order.append(c.Key)
	s.Children[c.Key] = c
	if s.Flags.Strategy != Dynamic {
		s.IDs[p.ID] = c.Key
	}
	return c
}

// store makes the record of a new child count.
func (s *State) store(c *Child) {
	c.New = false
	s.Specs++
	if c.Supervisor {
		s.Supers++
	}
}

// forget deletes a record that is Down.
func (s *State) forget(c *Child) {
	s.setPhase(c, Down)
	s.setTimer(c, 0)
	s.Order.remove(c.Pos)
	delete(s.Children, c.Key)
	if s.Flags.Strategy != Dynamic {
		delete(s.IDs, c.ID)
	}
	if !c.New {
		s.Specs--
		if c.Supervisor {
			s.Supers--
		}
	}
	s.emit(Effect{Kind: Forget, Key: c.Key})
}

// takeDown makes a child Down: its spec is kept with nothing running, or deleted if it is
// temporary or of a Dynamic supervisor (supervisor(3)).
func (s *State) takeDown(c *Child) {
	if c.Restart == Temporary || s.Flags.Strategy == Dynamic || c.New {
		s.forget(c)
		return
	}
	s.setPhase(c, Down)
	s.setTimer(c, 0)
	c.Known, c.Exited, c.Cancelled, c.Counted = false, false, false, false
}

// compact closes the gaps in the order. Positions change, so it must not run
// while Bound or Next are in use.
func (s *State) compact() {
	if s.Work != Idle {
		return
	}
	old := s.Order
	s.Order = Order{Keys: make([]Key, 0, old.Count+1)}
	for _, k := range old.Keys {
		if k == 0 {
			continue
		}
		c := s.Children[k]
		c.Pos = s.Order.append(k)
		if c.Phase != Down {
			s.Order.Active.set(c.Pos)
		}
	}
}
