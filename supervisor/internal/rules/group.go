package rules

import "time"

// This file is the work that occupies the whole supervisor: the first start,
// a group's restart, and the end. Each is a loop over the order, one child a
// turn, resumed by advance whenever the child of the turn has settled.

// beginGroup restarts trigger and those the strategy ties to it. With a delay
// they are stopped now and started after it.
func (s *State) beginGroup(trigger *Child, delay time.Duration) {
	s.Work, s.Next = Group, -1
	s.Trigger, s.TriggerKnown = trigger.Key, trigger.Known
	s.Pause, s.PauseUntil = delay > 0, s.now+Time(delay)
	s.Bound = 0
	if s.Flags.Strategy == RestForOne {
		s.Bound = trigger.Pos
	}
	trigger.Exited, trigger.Known = false, false
	s.setTimer(trigger, 0)
	s.setPhase(trigger, Down)
	s.advance()
}

// advance does the next turns until one has to wait for a child.
func (s *State) advance() {
	switch s.Work {
	case InitWork:
		if s.startDeclared() {
			s.Work = Idle
			s.emit(Effect{Kind: Up})
		}
	case Group:
		if s.Next < 0 {
			if !s.stopDown(s.Bound, s.Trigger) {
				return
			}
			if s.Pause {
				s.Work = Idle
				c := s.Children[s.Trigger]
				s.setPhase(c, Waiting)
				c.Known, c.Counted = s.TriggerKnown, true
				s.setTimer(c, s.PauseUntil)
				return
			}
			s.Next = s.Bound
		}
		if s.startNext() {
			s.Work = Idle
		}
	case StopWork:
		if s.stopsTogether() {
			if s.Order.Active.next(0) >= 0 {
				return
			}
		} else if !s.stopDown(0, s.FailedChild) {
			return
		}
		s.Work = Ended
		s.emit(Effect{Kind: Terminated, Why: s.Why, Key: s.FailedChild})
	case Idle, Fresh, Ended:
	}
}

// startDeclared starts declared children in order, as many at once as Flags.StartTogether allows,
// and reports whether all have come up.
func (s *State) startDeclared() bool {
	for s.Starts < max(1, s.Flags.StartTogether) {
		p := s.Order.Present.next(s.Next)
		if p < 0 {
			break
		}
		s.Next = p + 1
		s.start(s.Children[s.Order.Keys[p]], false, 0, 0)
	}
	return s.Starts == 0
}

// startNext starts the next child of a group in order and reports whether there was none.
// A group starts every spec it kept, those stopped by hand and those that had
// finished included (supervisor(3)).
func (s *State) startNext() bool {
	if c := s.Children[s.Turn]; c != nil && c.Phase == Starting {
		return false
	}
	p := s.Order.Present.next(s.Next)
	if p < 0 {
		s.Turn = 0
		return true
	}
	c := s.Children[s.Order.Keys[p]]
	s.Next, s.Turn = p+1, c.Key
	s.start(c, true, 0, s.Trigger)
	return false
}

// stopDown stops the last child at or after bound that is not Down, and
// reports whether there was none.
func (s *State) stopDown(bound int, cause Key) bool {
	for {
		p := s.Order.Active.prev(len(s.Order.Keys) - 1)
		if p < bound {
			return true
		}
		switch c := s.Children[s.Order.Keys[p]]; c.Phase {
		case Waiting:
			s.takeDown(c)
		case Running:
			if s.beginStop(c, cause); c.Phase == Stopping {
				return false
			}
		default: // Starting, Stopping: its turn goes on when it settles
			return false
		}
	}
}

// stop ends the supervisor: whatever else was going on is dropped.
func (s *State) stop(why Why, culprit Key) {
	if s.Work == StopWork {
		return
	}
	s.enterStop(why, culprit)
	if s.stopsTogether() {
		s.stopAll()
	}
	s.advance()
}

// kill ends everything at once, in no order.
func (s *State) kill() {
	if s.Work != StopWork {
		s.enterStop(ByKill, 0)
	}
	s.Why, s.FailedChild = ByKill, 0
	for p := s.Order.Active.next(0); p >= 0; p = s.Order.Active.next(p + 1) {
		switch c := s.Children[s.Order.Keys[p]]; {
		case c.Phase == Running:
			s.beginStop(c, 0)
		case c.Phase == Stopping:
			s.setTimer(c, 0)
			s.emit(Effect{Kind: KillInstance, Key: c.Key, Run: c.Run})
		case c.Phase == Waiting:
			s.takeDown(c)
		}
	}
	s.advance()
}

// enterStop refuses the requests that wait and hurries the starts that are
// going on, so that an end need not wait longer than they need to notice.
func (s *State) enterStop(why Why, culprit Key) {
	s.Work, s.Why, s.FailedChild = StopWork, why, culprit
	for _, ev := range s.Deferred {
		if ev.Kind == Request {
			s.answer(ev.Call.From, NoProc, 0)
		}
	}
	s.Deferred = nil
	for p := s.Order.Active.next(0); p >= 0; p = s.Order.Active.next(p + 1) {
		if c := s.Children[s.Order.Keys[p]]; c.Phase == Starting {
			s.cancel(c, false)
		}
	}
}

// stopsTogether reports whether the end stops all children at once.
func (s *State) stopsTogether() bool { return s.Flags.Strategy == Dynamic || s.Flags.StopTogether }

// stopAll stops all children at once. Their timers are due at the same time: OTP's
// one shared timeout of a Dynamic supervisor.
func (s *State) stopAll() {
	for p := s.Order.Active.next(0); p >= 0; p = s.Order.Active.next(p + 1) {
		switch c := s.Children[s.Order.Keys[p]]; c.Phase {
		case Running:
			s.beginStop(c, s.FailedChild)
		case Waiting:
			s.takeDown(c)
		case Down, Starting, Stopping:
		}
	}
}
