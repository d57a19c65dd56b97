package rules

// request answers a call, or keeps it until it can be answered as if calls
// and children's ends came one after another (supervisor(3)).
func (s *State) request(ev *Event) {
	call := &ev.Call
	switch s.Work {
	case StopWork, Ended:
		s.answer(call.From, NoProc, 0)
		return
	case Idle:
	default:
		s.Deferred = append(s.Deferred, *ev)
		return
	}
	if s.Flags.Strategy == Dynamic {
		s.dynamicRequest(call)
		return
	}
	c := s.Children[s.IDs[call.ID]]
	switch {
	case c == nil && call.Op == StartChild:
		c = s.add(call.Params)
		s.start(c, false, call.From, 0)
	case c == nil:
		s.answer(call.From, NotFound, 0)
	case c.Phase == Starting || c.Phase == Stopping:
		s.postpone(c, call)
	default:
		s.requestNow(c, call)
	}
}

// requestNow answers a call for a child that is Down, Running or Waiting.
func (s *State) requestNow(c *Child, call *Call) {
	switch call.Op {
	case StartChild:
		if c.Phase == Running {
			s.answer(call.From, AlreadyStarted, c.Key)
		} else {
			s.answer(call.From, AlreadyPresent, c.Key)
		}
	case TerminateChild:
		s.terminate(c, call)
	case RestartChild:
		if c.Phase == Down {
			s.start(c, false, call.From, 0)
		} else {
			s.answer(call.From, busyReply(c), c.Key)
		}
	case DeleteChild:
		if c.Phase == Down {
			s.forget(c)
			s.answer(call.From, OK, c.Key)
		} else {
			s.answer(call.From, busyReply(c), c.Key)
		}
	}
}

func busyReply(c *Child) Reply {
	if c.Phase == Waiting {
		return IsRestarting
	}
	return IsRunning
}

// terminate stops a child by hand. A wait for the next attempt is cancelled.
func (s *State) terminate(c *Child, call *Call) {
	if c.Phase == Running {
		c.From = call.From // answered by stopped
		s.beginStop(c, 0)
		return
	}
	s.takeDown(c)
	s.answer(call.From, OK, c.Key)
}

// postpone keeps a call until the child has settled. A start that is to be
// terminated is cancelled, so that the call need not wait for it.
func (s *State) postpone(c *Child, call *Call) {
	c.Calls = append(c.Calls, *call)
	if call.Op == TerminateChild && c.Phase == Starting {
		s.cancel(c, false)
	}
}

// dynamicRequest answers a call to a Dynamic supervisor, whose children are addressed by key alone.
func (s *State) dynamicRequest(call *Call) {
	switch call.Op {
	case StartChild:
		s.start(s.add(call.Params), false, call.From, 0)
	case TerminateChild:
		c := s.Children[call.Key]
		switch {
		case call.Key == 0:
			s.answer(call.From, IsDynamic, 0)
		case c != nil && (c.Phase == Starting || c.Phase == Stopping):
			s.postpone(c, call)
		case c != nil:
			s.terminate(c, call)
		case call.Key <= s.LastKey: // it was ours and has ended
			s.answer(call.From, OK, call.Key)
		default:
			s.answer(call.From, NotFound, 0)
		}
	default:
		s.answer(call.From, IsDynamic, 0)
	}
}
