package supervisor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// loop is the driver: it turns messages into events of the rules, and their effects into calls. It
// decides nothing and never waits for a child. All of it is owned by the goroutine of run.
type loop struct {
	s        *Supervisor
	state    *rules.State
	children map[rules.Key]*childRecord
	ids      map[string]rules.Key // Dynamic: the children by ID; else nil, the rules know
	calls    map[uint64]*call
	lastCall uint64
	timers   timers
	alarm    interface{ Stop() bool } // the clock timer for the top of timers
	alarmAt  rules.Time               // what alarm is set to; 0: none
	notify   []func()

	// The outcome of one batch of messages, which flush carries out together: first it
	// publishes the snapshot, then the events, then the answers; last it acts on children,
	// so that events of theirs come later.
	results []message // results of starts that do not block: taken before the mailbox
	dirty   []*childRecord
	events  []Event
	answers []pendingReply
	actions []func()

	views  persistentMap[childView]
	gen    uint64
	leaked int
	// abandoned has the starts that are no longer waited for, by run.
	abandoned  map[uint64]*childRecord
	books      map[string]*ChildBook // of the children before this supervisor, by ID; until Resume
	began      time.Time
	now        time.Time
	done       bool
	terminated rules.Effect // Terminated
	// lastStraw is why it gave up; startError is what the first start failed of.
	gaveUpReason Reason
	startError   error
}

// childRecord is what the driver keeps of a child. The rules have a record of their own.
type childRecord struct {
	key         rules.Key
	path        string
	spec        ChildSpec
	inst        Instance
	run         uint64 // inst's
	cancel      context.CancelCauseFunc
	reason      Reason // of the latest end
	exited      bool   // reason holds
	startErr    error  // of the latest start
	cancelCause error  // why the latest start was cancelled
	causePath   string // path of the child whose failure led to the latest start
	info        any
	leaked      int
	due         rules.Time
	book        *ChildBook // of the one before it, until that is of no use any more
	timerIndex  int        // in timers; -1: none

	status  Status
	since   time.Time
	began   time.Time // when the latest start, or instance, began
	dirty   bool
	removed bool
}

type pendingReply struct {
	call   *call
	result callReply
}

// batch bounds how many messages are taken before the outcome is published.
const batch = 256

func (l *loop) init(s *Supervisor) {
	l.s = s
	l.children = make(map[rules.Key]*childRecord)
	l.calls = make(map[uint64]*call)
	l.abandoned = make(map[uint64]*childRecord)
	l.gen = 1
	l.now = s.cfg.Clock.Now()
	l.began = l.now
	declared := s.spec.Children
	if s.spec.Strategy == Dynamic {
		declared = nil
		l.ids = make(map[string]rules.Key)
	}
	params := make([]rules.Params, len(declared))
	for i, c := range declared {
		params[i] = c.params()
	}
	l.state = rules.New(s.spec.flags(), params)
	l.recall()
	for i, c := range declared {
		l.newChild(rules.Key(i+1), c)
	}
	l.publish()
}

func (l *loop) newChild(key rules.Key, spec ChildSpec) *childRecord {
	child := &childRecord{key: key, path: l.s.path + "/" + spec.ID, spec: spec, timerIndex: -1, since: l.now}
	l.children[key] = child
	l.recallChild(child)
	l.markDirty(child)
	return child
}

// run is the supervisor's goroutine.
func (l *loop) run() {
	var spare []message
	l.step(rules.Event{Kind: rules.Begin})
	for {
		l.takeResults()
		l.flush()
		if l.done {
			break
		}
		q := l.s.inbox.take(spare)
		for i := range q {
			l.now = l.s.cfg.Clock.Now()
			l.handle(&q[i])
			l.takeResults()
			if i%batch == batch-1 {
				l.flush()
			}
		}
		clear(q)
		spare = q
		l.fireTimers()
		l.takeResults()
		l.flush()
		if l.done {
			break
		}
		if len(q) == 0 {
			l.sleep()
		}
	}
	l.finish()
}

// sleep waits for a message or for the next timer. A fired timer leaves its token in wake, too.
func (l *loop) sleep() {
	var due rules.Time
	if len(l.timers) > 0 {
		due = l.timers[0].due
	}
	if due != l.alarmAt {
		if l.alarm != nil {
			l.alarm.Stop()
		}
		l.alarm, l.alarmAt = nil, due
		if due != 0 {
			d := time.Duration(due - l.rulesNow())
			l.alarm = l.s.cfg.Clock.AfterFunc(max(d, 0), l.s.inbox.signal)
		}
	}
	<-l.s.inbox.wake
	l.now = l.s.cfg.Clock.Now()
}

// fireTimers delivers the timers that are due.
func (l *loop) fireTimers() {
	for !l.done {
		child := l.timers.pop(l.rulesNow())
		if child == nil {
			return
		}
		if child.due == l.alarmAt {
			l.alarmAt = 0
		}
		l.step(rules.Event{Kind: rules.Timer, Key: child.key})
		l.takeResults()
	}
}

// takeResults handles the results of starts that did not block. They come before all
// messages of the inbox.
func (l *loop) takeResults() {
	for len(l.results) > 0 {
		q := l.results
		l.results = nil
		for i := range q {
			l.handle(&q[i])
		}
	}
}

func (l *loop) rulesNow() rules.Time { return l.s.rulesTime(l.now) }

// handle turns a message into an event.
func (l *loop) handle(m *message) {
	if m.do != nil {
		m.do()
		return
	}
	ev := rules.Event{Kind: m.kind, Key: m.key, Run: m.run}
	child := l.children[m.key]
	switch m.kind {
	case rules.Started:
		if l.fromAbandonedStart(m) {
			m.inst.Kill()
			return
		}
		l.started(child, m)
	case rules.StartFailed, rules.Ignored:
		if l.fromAbandonedStart(m) {
			return
		}
		l.notStarted(child, m)
	case rules.Exited:
		if child == nil || child.run != m.run || child.inst == nil {
			return
		}
		l.exited(child, m)
		ev.End, ev.Leaked = child.reason.class(), m.leaked != nil
	case rules.Request:
		if !l.resolveKey(m.call) {
			return
		}
		l.lastCall++
		ev.Call = m.call.Call
		ev.Call.From = l.lastCall
		l.calls[l.lastCall] = m.call
	case rules.Begin, rules.Replaced, rules.Timer, rules.Stop, rules.Kill, rules.Await:
	}
	l.step(ev)
	if m.kind == rules.Started {
		l.goOn(child)
	}
}

// fromAbandonedStart reports whether m is the outcome of an abandoned start. Such a start is
// then no longer leaked.
func (l *loop) fromAbandonedStart(m *message) bool {
	child := l.abandoned[m.run]
	if child == nil {
		return false
	}
	delete(l.abandoned, m.run)
	l.unleak(child, 0, child.began)
	return true
}

// started handles an instance that has come up.
func (l *loop) started(child *childRecord, m *message) {
	child.inst, child.run, child.info, child.startErr = m.inst, m.run, m.inst.Info(), nil
	l.event(Event{Kind: ChildStarted, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: l.incarnation(child) + 1, Took: l.now.Sub(child.began), Cause: child.causePath, Info: child.info})
	child.began = l.now
	child.cancel(nil)
	l.markDirty(child)
	watch(&l.s.inbox, m.key, m.run, m.inst)
}

// watch posts a message when the instance has ended. Instances of this package, and those
// that embed [Termination], call back, which saves a goroutine for each.
func watch(box *inbox, key rules.Key, run uint64, inst Instance) {
	ended := func() {
		box.post(message{kind: rules.Exited, key: key, run: run, leaked: inst.Leaked()})
	}
	switch i := inst.(type) {
	case *Supervisor:
		i.onDone(ended)
		return
	case *funcInstance:
		i.onDone(ended)
		return
	case interface{ termination() *Termination }:
		if t := i.termination(); t.Done() == inst.Done() { // else it is embedded by one that ends otherwise
			t.onDone(ended)
			return
		}
	}
	// Owned by the loop; ends with the instance, for which the loop waits.
	go func() {
		<-inst.Done()
		ended()
	}()
}

// notStarted handles a start that failed or was ignored.
func (l *loop) notStarted(child *childRecord, m *message) {
	child.startErr = m.err
	if child.cancelCause != nil && m.err != nil && !errors.Is(m.err, child.cancelCause) { // the cause of the context's end says more
		child.startErr = fmt.Errorf("%w: %w", child.cancelCause, m.err)
	}
	kind, r := ChildIgnored, Reason{}
	if m.kind == rules.StartFailed {
		kind, r = ChildStartFailed, ReasonOf(child.startErr)
	}
	l.event(Event{Kind: kind, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: l.incarnation(child) + 1, Reason: r, Took: l.now.Sub(child.began)})
	child.cancel(nil)
	l.markDirty(child)
}

// exited handles an instance that has ended.
func (l *loop) exited(child *childRecord, m *message) {
	child.reason, child.exited = child.inst.Reason(), true
	kind := ChildExited
	if c := l.state.Children[child.key]; c != nil && c.Phase == rules.Stopping {
		kind = ChildStopped
	}
	l.event(Event{Kind: kind, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: l.incarnation(child), Reason: child.reason, Took: l.now.Sub(child.began), Info: child.info})
	if m.leaked != nil {
		l.trackLeak(child, m)
	}
	child.inst = nil
	l.markDirty(child)
}

// trackLeak counts what an instance left running, until that has ended.
func (l *loop) trackLeak(child *childRecord, m *message) {
	inc, since, ch := l.incarnation(child), l.now, m.leaked
	l.addLeak(child, inc)
	// Ends with the leaked goroutine only: it is part of the leak.
	go func() {
		<-ch
		l.s.inbox.post(message{do: func() { l.unleak(child, inc, since) }})
	}()
}

func (l *loop) addLeak(child *childRecord, inc uint64) {
	child.leaked++
	l.leaked++
	l.event(Event{Kind: ChildLeaked, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: inc})
	l.markDirty(child)
}

func (l *loop) unleak(child *childRecord, inc uint64, since time.Time) {
	child.leaked--
	l.leaked--
	l.event(Event{Kind: ChildLeakEnded, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: inc, Took: l.now.Sub(since)})
	l.markDirty(child)
}

func (l *loop) incarnation(child *childRecord) uint64 {
	if c := l.state.Children[child.key]; c != nil {
		return c.Inc
	}
	return 0
}

// step gives an event to the rules and carries out their effects.
func (l *loop) step(ev rules.Event) {
	if l.state.Flags.Backoff.Initial > 0 {
		ev.Rand = l.s.cfg.Rand()
	}
	for _, e := range l.state.Step(l.rulesNow(), ev) {
		l.effect(&e)
	}
}

// effect carries out one effect.
func (l *loop) effect(e *rules.Effect) {
	child := l.children[e.Key]
	switch e.Kind {
	case rules.Start:
		if child == nil { // StartChild: the rules have just made the record
			child = l.addChild(e)
		}
		l.start(child, e)
	case rules.Cancel:
		child.cancelCause = ErrStartCancelled
		if e.TimedOut {
			child.cancelCause = ErrStartTimeout
		}
		child.cancel(child.cancelCause)
	case rules.Abandon:
		child.startErr = child.cancelCause
		l.abandoned[e.Run] = child
		l.event(Event{Kind: ChildStartFailed, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: l.incarnation(child) + 1, Reason: ReasonOf(child.startErr), Took: l.now.Sub(child.began)})
		l.addLeak(child, 0)
	case rules.StopInstance:
		l.event(Event{Kind: ChildStopping, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: l.incarnation(child), Cause: l.causePath(e.Cause)})
		l.actions = append(l.actions, child.inst.Stop)
	case rules.KillInstance:
		if child != nil && child.inst != nil && child.run == e.Run {
			l.actions = append(l.actions, child.inst.Kill)
		}
	case rules.SetTimer:
		l.timers.set(child, e.At)
		l.markDirty(child)
	case rules.Answer:
		l.answer(e)
	case rules.Report:
		l.report(child, e)
	case rules.Retry:
		l.event(Event{
			Kind: ChildRestarting, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor, Incarnation: e.Inc, Attempt: e.Attempt,
			Left: e.Left, Max: l.state.Flags.Max, Delay: time.Duration(e.Delay), Reason: child.reason,
		})
	case rules.Moved:
		if child != nil { // else its Start follows, which makes it
			l.markDirty(child)
		}
	case rules.Forget:
		child.removed = true
		delete(l.children, child.key)
		if l.ids != nil {
			delete(l.ids, child.spec.ID)
		}
		l.markDirty(child)
		l.event(Event{Kind: ChildRemoved, Path: child.path, ofSupervisor: child.spec.kind() == TypeSupervisor})
	case rules.Up:
		l.event(Event{Kind: SupervisorUp, Path: l.s.path, Took: l.now.Sub(l.began)})
		if b := l.s.book; b != nil {
			l.began = l.s.timeOf(l.past(b.Began))
		}
	case rules.Terminated:
		l.done, l.terminated = true, *e
	}
}

func (l *loop) causePath(key rules.Key) string {
	if c := l.children[key]; c != nil {
		return c.path
	}
	return ""
}

// start calls the child's Start on a new goroutine. That of a function does not block, and
// is called at once.
func (l *loop) start(child *childRecord, e *rules.Effect) {
	base, cancel := context.WithCancelCause(l.s.childCtx)
	child.cancel, child.cancelCause = cancel, nil
	child.began, child.causePath = l.now, l.causePath(e.Cause)
	inc := Incarnation{Path: child.path, ID: child.spec.ID, N: e.Inc}
	if _, ok := child.spec.Start.(*funcStarter); ok {
		m := startMessage(e)
		callStart(base, child.spec.Start, inc, &m)
		l.results = append(l.results, m)
		return
	}
	starter, m, box := child.spec.Start, startMessage(e), &l.s.inbox
	// Owned by the loop, which waits for the message; Cancel asks it to end,
	// and what is abandoned kills its instance itself.
	l.actions = append(l.actions, func() {
		go func() {
			defer func() { // runs after runtime.Goexit, too
				if !box.post(m) && m.inst != nil {
					m.inst.Kill()
				}
			}()
			callStart(base, starter, inc, &m)
		}()
	})
}

// startMessage returns the message for a start that did not return.
func startMessage(e *rules.Effect) message {
	return message{kind: rules.StartFailed, key: e.Key, run: e.Run, err: errGoexit}
}

// callStart calls Start and enters its outcome into m.
func callStart(ctx context.Context, st Starter, inc Incarnation, m *message) {
	defer func() {
		if v := recover(); v != nil {
			m.err = Exit(Reason{Kind: Panic, Value: v, Stack: string(debug.Stack())})
		}
	}()
	inst, err := st.Start(ctx, inc)
	switch {
	case errors.Is(err, ErrIgnore):
		m.kind, m.err = rules.Ignored, nil
	case err != nil:
		m.err = err
	case inst == nil:
		m.err = errNoInstance
	default:
		m.kind, m.inst, m.err = rules.Started, inst, nil
	}
}
