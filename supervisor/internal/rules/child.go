package rules

import "time"

// This file is the life of one child, apart from groups.

// start issues a start. From is the call to answer, or zero.
func (s *State) start(c *Child, auto bool, from uint64, cause Key) {
	s.setPhase(c, Starting)
	s.LastRun++
	c.Run, c.Automatic, c.From = s.LastRun, auto, from
	c.Exited, c.Cancelled, c.Counted = false, false, false
	s.emit(Effect{Kind: Start, Key: c.Key, Run: c.Run, Inc: c.Inc + 1, Automatic: auto, Cause: cause, From: from})
	if c.StartTimeout > 0 {
		s.setTimer(c, s.now+Time(c.StartTimeout))
	}
}

// startEnded takes the answer to a Start.
func (s *State) startEnded(ev *Event) {
	c := s.Children[ev.Key]
	if c == nil || c.Phase != Starting || c.Run != ev.Run {
		if ev.Kind == Started { // of a start that was abandoned
			s.emit(Effect{Kind: KillInstance, Key: ev.Key, Run: ev.Run})
		}
		return
	}
	s.setTimer(c, 0)
	from := c.From
	c.From = 0
	switch ev.Kind {
	case Started:
		s.setPhase(c, Running)
		c.Inc++
		c.Known = true
		c.UpSince = s.now
		if c.New {
			s.store(c)
		}
		s.answer(from, OK, c.Key)
		if s.Work == StopWork && s.stopsTogether() {
			s.beginStop(c, s.FailedChild)
		}
	case Ignored:
		if c.New && c.Restart != Temporary && s.Flags.Strategy != Dynamic {
			s.store(c)
		}
		s.answer(from, OKUndefined, c.Key)
		s.takeDown(c)
	default:
		if from != 0 || !c.Automatic && s.Work != InitWork {
			s.answer(from, Failure, c.Key)
			s.takeDown(c)
		} else {
			s.attemptFailed(c)
		}
	}
	s.afterTransition(c)
}

// attemptFailed is a failed start of the supervisor's own: at the beginning it
// ends the supervisor, later the next attempt follows (supervisor(3)).
func (s *State) attemptFailed(c *Child) {
	switch s.Work {
	case StopWork:
		s.takeDown(c)
		return
	case InitWork:
		c.Known = false
		s.report(StartError, c)
		s.takeDown(c)
		s.stop(ByStart, c.Key)
		return
	case Group:
		// OTP reports a member of the group by its id alone, and remembers
		// the former instance only of the one that set off the restart.
		c.Known = false
		s.report(StartError, c)
		c.Known = c.Key == s.Trigger && s.TriggerKnown
		s.Work = Idle
		s.emit(Effect{Kind: Moved, Key: s.Trigger}) // it is not the one that is restarting any more
	default:
		s.report(StartError, c)
	}
	s.failure(c)
	d := s.delay(c)
	s.Window.drop(s.now, s.Flags.Period)
	s.announce(c, d, s.Flags.Max-len(s.Window)-1)
	s.wait(c, d)
}

// afterTransition runs after a child has left Starting or Stopping: the group or the
// shutdown goes on, and the requests that waited for this child are taken.
func (s *State) afterTransition(c *Child) {
	calls := c.Calls
	c.Calls = nil
	for i := range calls {
		s.request(&Event{Kind: Request, Call: calls[i]})
	}
	if s.Work != Idle {
		s.advance()
	}
}

// exited takes the end of an instance.
func (s *State) exited(ev *Event) {
	c := s.Children[ev.Key]
	if c == nil || c.Run != ev.Run {
		return
	}
	switch c.Phase {
	case Stopping:
		c.End = ev.End
		s.stopped(c)
		if ev.Leaked && s.Flags.LeakEscalates && s.Work != StopWork {
			// Before the group goes on, which would start the child beside
			// what it left. The requests that waited for it are refused.
			for i := range c.Calls {
				s.Deferred = append(s.Deferred, Event{Kind: Request, Call: c.Calls[i]})
			}
			c.Calls = nil
			s.giveUp(c, ByLeak)
		}
		s.afterTransition(c)
	case Running:
		s.LastUp = s.now
		if !c.Exited { // a deferred notice comes by a second time
			c.Exited, c.End = true, ev.End
		}
		if s.Work != Idle {
			// The group may get to this child before the notice is taken;
			// then it is stale. When all is being stopped, advance finds it.
			if s.Work != StopWork {
				s.Deferred = append(s.Deferred, *ev)
			}
			return
		}
		s.ended(c, ev.Leaked)
	case Down, Starting, Waiting:
	}
}

// ended decides what follows an unexpected end of a child (supervisor(3)).
func (s *State) ended(c *Child, leaked bool) {
	restart := c.Restart == Permanent || c.Restart == Transient && c.End.Fails()
	if restart || c.End.Fails() {
		s.report(ChildTerminated, c)
	}
	switch {
	case leaked && s.Flags.LeakEscalates:
		s.giveUp(c, ByLeak)
	case restart:
		s.restart(c)
	default:
		significant := c.Significant
		s.takeDown(c)
		if significant && s.autoShutdown() {
			s.stop(ByAuto, c.Key)
		}
	}
}

// autoShutdown reports whether the end of a significant child ends the supervisor (supervisor(3)).
func (s *State) autoShutdown() bool {
	switch s.Flags.AutoShutdown {
	case AnySignificant:
		return true
	case AllSignificant:
		if s.Flags.Strategy == Dynamic {
			return s.Order.Count == 0
		}
		return s.Significant == 0
	default:
		return false
	}
}

// restart is the first attempt after a child has ended.
func (s *State) restart(c *Child) {
	if up := time.Duration(s.now - c.UpSince); s.healthy(c, up) {
		c.Failures = 0
	}
	s.failure(c)
	if !s.admit(c) {
		return
	}
	var d time.Duration
	if !s.Flags.Backoff.AtOnce || len(s.Window) > s.Flags.Max {
		d = s.delay(c)
	}
	s.announce(c, d, s.Flags.Max-len(s.Window))
	if s.grouped() {
		s.beginGroup(c, d)
	} else if d > 0 {
		s.wait(c, d)
		c.Counted = true
	} else {
		s.start(c, true, 0, c.Key)
	}
}

// healthy reports whether a child that was up this long starts again with no failures.
func (s *State) healthy(c *Child, up time.Duration) bool {
	if b := s.Flags.Backoff; b.enabled() {
		return up > 2*c.Bound && up > b.ResetAfter
	}
	return up > s.Flags.Period
}

// retry is every further attempt: the timer of a Waiting child is due.
func (s *State) retry(c *Child) {
	if !c.Counted && !s.admit(c) {
		return
	}
	c.Counted = false
	if s.grouped() {
		s.beginGroup(c, 0)
	} else {
		s.start(c, true, 0, c.Key)
	}
}

func (s *State) grouped() bool {
	return s.Flags.Strategy == OneForAll || s.Flags.Strategy == RestForOne
}

// announce emits the effect for an attempt that was decided.
func (s *State) announce(c *Child, d time.Duration, left int) {
	s.emit(Effect{
		Kind: Retry, Key: c.Key, Run: c.Run, Inc: c.Inc, Attempt: c.Failures,
		Left: max(left, 0), Delay: int64(d), Cause: c.Key,
	})
}

// wait delays a child's restart until its timer is due. A delay of zero is a wait too:
// messages that are in the mailbox come first (supervisor(3)).
func (s *State) wait(c *Child, d time.Duration) {
	s.setPhase(c, Waiting)
	c.Exited = false
	s.setTimer(c, s.now+Time(d))
}

// await makes a child wait for its restart again, where a supervisor goes on in another's place.
func (s *State) await(ev *Event) {
	c := s.Children[ev.Key]
	switch {
	case s.Work != Idle && s.Work != StopWork:
		s.Deferred = append(s.Deferred, *ev)
	case c != nil && c.Phase == Down && s.Work == Idle:
		s.setPhase(c, Waiting)
		c.Known, c.Counted = true, ev.Counted
		s.setTimer(c, max(ev.At, s.now))
	}
}

// failure counts a consecutive failure and moves the delay's bound.
func (s *State) failure(c *Child) {
	c.Failures++
	if b := s.Flags.Backoff; b.enabled() {
		c.Bound = b.bound(c.Failures)
	}
}

// delay draws the wait before the next attempt.
func (s *State) delay(c *Child) time.Duration {
	if b := s.Flags.Backoff; b.enabled() {
		return b.jitter(c.Bound, s.rand)
	}
	return 0
}

// admit enters an attempt into the window, first of all, and gives up if that
// is one too many (supervisor(3)).
func (s *State) admit(c *Child) bool {
	s.Window.drop(s.now, s.Flags.Period)
	s.Window.add(s.now)
	switch {
	case len(s.Window) <= s.Flags.Max:
		s.Excess = 0
	case !s.persists(c):
		s.giveUp(c, ByIntensity)
		return false
	default:
		if s.Excess++; s.Excess&(s.Excess-1) == 0 { // the first, second, fourth, eighth …
			s.report(Persisted, c)
		}
	}
	if n := s.Flags.Backoff.Attempts; n > 0 && c.Failures > n {
		s.giveUp(c, ByAttempts)
		return false
	}
	return true
}

// persists reports whether the supervisor goes on though c's attempt is one too many: another child
// is up, or some child was within Period. What can come up is worth another attempt.
func (s *State) persists(c *Child) bool {
	if !s.Flags.Persist || s.grouped() {
		return false
	}
	if s.LastUp > 0 && s.now-s.LastUp <= Time(s.Flags.Period) {
		return true
	}
	for p := s.Order.Active.next(0); p >= 0; p = s.Order.Active.next(p + 1) {
		if o := s.Children[s.Order.Keys[p]]; o != c && o.Phase == Running && !o.Exited {
			return true
		}
	}
	return false
}

func (s *State) giveUp(c *Child, why Why) {
	s.report(GaveUp, c)
	if s.Children[c.Key] == c && (c.Phase == Running && c.Exited || c.Phase == Waiting) {
		s.takeDown(c)
	}
	s.stop(why, c.Key)
}

// timer takes a child's timer that is due.
func (s *State) timer(ev *Event) {
	c := s.Children[ev.Key]
	if c == nil || c.At == 0 || s.now < c.At {
		return
	}
	switch c.Phase {
	case Starting:
		if !c.Cancelled {
			s.cancel(c, true)
			return
		}
		s.setTimer(c, 0)
		s.emit(Effect{Kind: Abandon, Key: c.Key, Run: c.Run})
		s.startEnded(&Event{Kind: StartFailed, Key: c.Key, Run: c.Run})
	case Stopping:
		s.setTimer(c, 0)
		s.emit(Effect{Kind: KillInstance, Key: c.Key, Run: c.Run})
	case Waiting:
		if s.Work != Idle {
			s.Deferred = append(s.Deferred, *ev)
			return
		}
		s.setTimer(c, 0)
		s.retry(c)
	case Down, Running:
	}
}

// cancel asks a start under way to end. It is abandoned if it does not within StartGrace.
func (s *State) cancel(c *Child, late bool) {
	if c.Cancelled {
		return
	}
	c.Cancelled = true
	s.emit(Effect{Kind: Cancel, Key: c.Key, Run: c.Run, TimedOut: late})
	if c.StartGrace > 0 {
		s.setTimer(c, s.now+Time(c.StartGrace))
	} else {
		s.setTimer(c, 0)
	}
}

// beginStop stops a running child. One that has ended already has stopped.
func (s *State) beginStop(c *Child, cause Key) {
	s.setPhase(c, Stopping)
	switch {
	case c.Exited:
		s.stopped(c)
	case c.Shutdown == BrutalKill || s.Work == StopWork && s.Why == ByKill:
		s.emit(Effect{Kind: KillInstance, Key: c.Key, Run: c.Run, Cause: cause})
	default:
		s.emit(Effect{Kind: StopInstance, Key: c.Key, Run: c.Run, Cause: cause})
		if c.Shutdown != Infinity {
			s.setTimer(c, s.now+Time(c.Shutdown))
		}
	}
}

// stopped is the end of a child that was to end (supervisor(3)).
func (s *State) stopped(c *Child) {
	var asAsked bool
	switch c.End {
	case Shutdown:
		asAsked = c.Shutdown != BrutalKill || c.Restart != Permanent
	case Killed:
		asAsked = c.Shutdown == BrutalKill
	case Normal, ShutdownDetail:
		asAsked = c.Restart != Permanent
	case Failed:
	}
	if !asAsked && !(s.Work == StopWork && s.Why == ByKill) {
		s.report(ShutdownError, c)
	}
	from := c.From
	c.From = 0
	s.takeDown(c)
	s.answer(from, OK, c.Key)
}
