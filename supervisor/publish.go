package supervisor

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// This file is what the driver shows: snapshots, events, the log and the supervisor's own end.

// event adds an event to the batch.
func (l *loop) event(ev Event) {
	ev.Time, ev.Supervisor = l.now, l.s.path
	l.events = append(l.events, ev)
}

// markDirty has a child's part of the snapshot rebuilt.
func (l *loop) markDirty(child *childRecord) {
	if !child.dirty {
		child.dirty = true
		l.dirty = append(l.dirty, child)
	}
}

// flush publishes the outcome of a batch, and acts on children.
func (l *loop) flush() {
	if len(l.dirty)+len(l.events)+len(l.answers) > 0 {
		l.publish()
	}
	heard, log := l.s.publisher.hasSubscribers(), l.s.cfg.Logger
	for i := range l.events {
		ev := &l.events[i]
		if heard {
			l.s.publisher.publish(*ev)
		}
		if f := l.s.cfg.Observe; f != nil {
			f(*ev)
		}
		if level := ev.level(); ev.Kind != ChildNoted && log.Enabled(context.Background(), level) {
			logEvent(log, level, ev)
		}
		if ev.Kind == SupervisorUp {
			close(l.s.allUp)
		}
	}
	clear(l.events)
	l.events = l.events[:0]
	for i := range l.answers {
		a := &l.answers[i]
		a.call.reply <- a.result // has room for one
	}
	clear(l.answers)
	l.answers = l.answers[:0]
	for _, act := range l.actions {
		act()
	}
	clear(l.actions)
	l.actions = l.actions[:0]
}

// publish rebuilds the snapshot where it changed.
func (l *loop) publish() {
	for _, child := range l.dirty {
		child.dirty = false
		if child.removed {
			l.views.set(l.gen, uint64(child.key), nil)
			continue
		}
		l.views.set(l.gen, uint64(child.key), l.viewOf(child))
	}
	clear(l.dirty)
	l.dirty = l.dirty[:0]

	st := l.state
	v := &view{children: l.views, window: st.Window, period: st.Flags.Period, node: Node{
		Path:     l.s.path,
		ID:       l.s.id(),
		Type:     TypeSupervisor,
		Status:   Running,
		Since:    l.began,
		Leaked:   l.leaked,
		Strategy: l.s.spec.Strategy,
		Max:      st.Flags.Max,
		Counts:   l.counts(),
	}}
	switch st.Work {
	case rules.Fresh, rules.InitWork:
		v.node.Status = Starting
	case rules.StopWork:
		v.node.Status = Stopping
	case rules.Ended:
		v.node.Status = Down
	case rules.Idle, rules.Group:
	}
	l.s.view.Store(v)
	l.gen++ // what was published is no longer ours to edit
}

func (l *loop) counts() Counts {
	st := l.state
	c := Counts{Specs: st.Specs, Active: st.Live, Supervisors: st.Supers, Workers: st.Specs - st.Supers}
	if st.Flags.Strategy == rules.Dynamic {
		c.Specs = 1
	}
	return c
}

func (l *loop) viewOf(child *childRecord) *childView {
	c := l.state.Children[child.key]
	if now := status(l.state, c); now != child.status {
		child.status, child.since = now, l.now
	}
	v := &childView{spec: child.spec, inst: child.inst, node: Node{
		Path:        child.path,
		ID:          child.spec.ID,
		Type:        child.spec.kind(),
		Restart:     child.spec.Restart,
		Significant: child.spec.Significant,
		Status:      child.status,
		Incarnation: c.Inc,
		Since:       child.since,
		Failures:    c.Failures,
		Leaked:      child.leaked,
		Info:        child.info,
	}}
	if c.Phase == rules.Waiting && c.At > 0 {
		v.node.NextAttempt = l.s.timeOf(c.At)
	}
	if child.exited {
		r := child.reason
		v.node.LastExit = &r
	}
	return v
}

// report marks the event that OTP would log at error level, or makes one if the end itself
// was published in an earlier batch.
func (l *loop) report(child *childRecord, e *rules.Effect) {
	if e.Context == rules.GaveUp {
		l.gaveUpReason = l.giveUpReason(e.Key)
		l.event(Event{Kind: SupervisorGaveUp, Path: l.s.path, Reason: l.gaveUpReason, Cause: l.causePath(e.Key)})
		return
	}
	if e.Context == rules.Persisted {
		st := l.state
		l.event(Event{
			Kind: SupervisorPersists, Path: l.s.path, Reason: l.giveUpReason(e.Key), Cause: l.causePath(e.Key),
			Attempt: len(st.Window), Max: st.Flags.Max, Left: l.runningChildren(),
		})
		return
	}
	for i := len(l.events) - 1; i >= 0; i-- {
		ev := &l.events[i]
		if ev.Path != child.path {
			continue
		}
		switch ev.Kind {
		case ChildExited, ChildStopped, ChildStartFailed:
			ev.Fault = true
			if ev.Kind == ChildStartFailed && l.startError == nil {
				l.startError, ev.returned = &StartError{Path: child.path, Err: child.startErr}, l.state.Why == rules.ByStart
			}
			return
		case ChildStarted, ChildIgnored, ChildRestarting, ChildStopping, ChildRemoved, ChildLeaked, ChildLeakEnded, ChildNoted, SupervisorUp, SupervisorGaveUp, SupervisorDown, SupervisorPersists:
		}
	}
	l.event(Event{Kind: ChildStopped, Path: child.path, Incarnation: e.Inc, Reason: child.reason, Fault: true})
}

// runningChildren returns the number of children that are up.
func (l *loop) runningChildren() (n int) {
	for _, c := range l.state.Children {
		if c.Phase == rules.Running && !c.Exited {
			n++
		}
	}
	return n
}

// giveUpReason returns a reason that names the exceeded limit.
func (l *loop) giveUpReason(key rules.Key) Reason {
	f, child := l.state.Flags, l.children[key]
	r := Reason{Kind: GaveUp}
	if child != nil {
		if child.startErr != nil {
			r.Cause = &StartError{Path: child.path, Err: child.startErr}
		} else if child.exited {
			r.Cause = fmt.Errorf("%s: %w", child.path, Exit(child.reason))
		}
	}
	if len(l.state.Window) > f.Max {
		r.Detail = fmt.Sprintf("more than %d restarts in %v", f.Max, f.Period)
	} else if c := l.state.Children[key]; c != nil && f.Backoff.Attempts > 0 && c.Failures > f.Backoff.Attempts {
		r.Detail = fmt.Sprintf("%s failed %d times in a row", child.path, c.Failures)
	} else {
		r.Detail = "a child leaked"
	}
	return r
}

// finish publishes the last snapshot, the last event and the last answers.
func (l *loop) finish() {
	s := l.s
	switch l.terminated.Why {
	case rules.ByKill:
		s.reason = Reason{Kind: Killed}
	case rules.ByStart:
		s.failed = l.startError
		s.reason = Reason{Kind: Error, Cause: s.failed}
	case rules.ByIntensity, rules.ByAttempts, rules.ByLeak:
		s.reason = l.gaveUpReason
		if s.spec.OTP {
			s.reason = Reason{Kind: Shutdown}
		}
	default:
		s.reason = Reason{Kind: Shutdown}
	}
	if l.alarm != nil {
		l.alarm.Stop()
	}
	l.event(Event{Kind: SupervisorDown, Path: s.path, Reason: s.reason})
	l.flush()
	left := s.inbox.close()
	for i := range left {
		switch m := &left[i]; {
		case m.do != nil:
			m.do()
		case m.kind == rules.Started: // of an abandoned start
			m.inst.Kill()
		case m.kind == rules.Request:
			m.call.reply <- callReply{err: ErrStopped}
		}
	}
	for _, c := range l.calls {
		c.reply <- callReply{err: ErrStopped}
	}
	s.publisher.close()
	s.tree.remove(s)
	close(s.done)
	for _, f := range l.notify {
		f()
	}
}

// level returns the level at which the log has the event: each start, restart and end of a child
// once at Info, unless OTP would log it as an error. A child that is a supervisor logs by its own
// events, of which the end of the root is at Info, and its restarts. The error that
// Start returns is not logged.
func (e *Event) level() slog.Level {
	switch {
	case e.returned:
		return slog.LevelDebug
	case e.IsError():
		return slog.LevelError
	case e.ofSupervisor && e.Kind != ChildRestarting:
		return slog.LevelDebug
	}
	switch e.Kind {
	case ChildStarted, ChildExited, ChildStopped, ChildRestarting:
		return slog.LevelInfo
	case SupervisorDown:
		if !strings.Contains(e.Path, "/") {
			return slog.LevelInfo
		}
	case ChildIgnored, ChildStartFailed, ChildStopping, ChildRemoved, ChildLeaked, ChildLeakEnded, ChildNoted, SupervisorUp, SupervisorGaveUp, SupervisorPersists:
	}
	return slog.LevelDebug
}

// logEvent writes an event to the log, without empty fields.
func logEvent(log *slog.Logger, level slog.Level, ev *Event) {
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs, slog.String("path", ev.Path))
	switch info := ev.Info.(type) {
	case nil:
		if ev.Incarnation > 0 {
			attrs = append(attrs, slog.Uint64("incarnation", ev.Incarnation))
		}
	case slog.LogValuer: // it has the incarnation too
		attrs = append(attrs, slog.Any("process", info))
	default:
		attrs = append(attrs, slog.Uint64("incarnation", ev.Incarnation), slog.Any("info", info))
	}
	switch ev.Kind {
	case ChildExited, ChildStopped, ChildStartFailed, SupervisorGaveUp, SupervisorDown:
		attrs = append(attrs, slog.String("reason", ev.Reason.String()))
		if ev.Reason.Kind == Panic {
			attrs = append(attrs, slog.String("stack", Cut(ev.Reason.Stack)))
		}
	case ChildRestarting:
		attrs = append(attrs, slog.Int("attempt", ev.Attempt), slog.Int("left", ev.Left),
			slog.Int("max", ev.Max), slog.String("delay", ev.Delay.String()))
	case SupervisorPersists:
		attrs = append(attrs, slog.String("reason", strings.TrimPrefix(ev.Reason.String(), "gave up: ")),
			slog.Int("restarts", ev.Attempt), slog.Int("max", ev.Max), slog.Int("up", ev.Left))
	case ChildStarted, ChildIgnored, ChildStopping, ChildRemoved, ChildLeaked, ChildLeakEnded, ChildNoted, SupervisorUp:
	}
	if ev.Cause != "" {
		attrs = append(attrs, slog.String("cause", ev.Cause))
	}
	if ev.Took > 0 {
		attrs = append(attrs, slog.String("took", ev.Took.Round(roundedTo(ev.Took)).String()))
	}
	log.LogAttrs(context.Background(), level, "supervisor: "+ev.Kind.String(), attrs...)
}

// roundedTo returns what to round d to, so that three digits or four are left.
func roundedTo(d time.Duration) time.Duration {
	unit := time.Nanosecond
	for d >= 10_000*unit {
		unit *= 10
	}
	return unit
}
