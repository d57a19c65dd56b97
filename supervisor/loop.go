package supervisor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// loop is the driver: it turns messages into events of the rules, and their
// effects into calls. It decides nothing and never waits for a child. All of
// it is owned by the one goroutine in run.
type loop struct {
	s      *Supervisor
	state  *rules.State
	kids   map[rules.Key]*kid
	ids    map[string]rules.Key // Dynamic: the children by ID; else nil, the rules know
	calls  map[uint64]*call
	ticket uint64
	timers timers
	alarm  interface{ Stop() bool } // the clock timer for the top of timers
	alarmT rules.Time               // what alarm is set to; 0: none
	notify []func()

	// What one batch of messages has brought about, done together: first the
	// snapshot is published, then the events, then the answers, and last
	// children are acted on, so that what they do comes after in the story.
	inline  []message // results of starts that do not block: taken before the mailbox
	dirty   []*kid
	events  []Event
	answers []answered
	acts    []func()

	table  table[childView]
	gen    uint64
	leaked int
	// abandoned holds the starts that nobody waits for any more.
	abandoned map[uint64]*kid
	began     time.Time
	now       time.Time
	ended     bool
	end       rules.Effect // Terminated
	// lastStraw is why it gave up; startError is what the first start failed of.
	lastStraw  Reason
	startError error
}

// kid is what the driver keeps of one child beside the rules' record.
type kid struct {
	key    rules.Key
	path   string
	spec   ChildSpec
	inst   Instance
	run    uint64 // inst's
	cancel context.CancelCauseFunc
	reason Reason // of the latest end
	ended  bool   // reason holds
	err    error  // of the latest start
	given  error  // why the latest start was cancelled
	cause  string // path of the child whose failure led to the latest start
	info   any
	leaked int
	due    rules.Time
	slot   int // in timers; -1: none

	status Status
	since  time.Time
	from   time.Time // when the latest start, or instance, began
	dirty  bool
	gone   bool
}

type answered struct {
	c *call
	r callResult
}

// batch bounds how many messages are taken before the outcome is published.
const batch = 256

func (l *loop) init(s *Supervisor) {
	l.s = s
	l.kids = make(map[rules.Key]*kid)
	l.calls = make(map[uint64]*call)
	l.abandoned = make(map[uint64]*kid)
	l.gen = 1
	l.now = s.epoch
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
	for i, c := range declared {
		l.newKid(rules.Key(i+1), c)
	}
	l.publish()
}

func (l *loop) newKid(key rules.Key, spec ChildSpec) *kid {
	k := &kid{key: key, path: l.s.path + "/" + spec.ID, spec: spec, slot: -1, since: l.now}
	l.kids[key] = k
	l.touch(k)
	return k
}

// run is the supervisor's goroutine.
func (l *loop) run() {
	var spare []message
	l.step(rules.Event{Kind: rules.Begin})
	for {
		l.drain()
		l.flush()
		if l.ended {
			break
		}
		q := l.s.box.take(spare)
		for i := range q {
			l.now = l.s.cfg.Clock.Now()
			l.message(&q[i])
			l.drain()
			if i%batch == batch-1 {
				l.flush()
			}
		}
		clear(q)
		spare = q
		l.fire()
		l.drain()
		l.flush()
		if l.ended {
			break
		}
		if len(q) == 0 {
			l.sleep()
		}
	}
	l.finish()
}

// sleep waits for a message or for the next timer. A fired timer leaves its
// token in wake, too.
func (l *loop) sleep() {
	var due rules.Time
	if len(l.timers) > 0 {
		due = l.timers[0].due
	}
	if due != l.alarmT {
		if l.alarm != nil {
			l.alarm.Stop()
		}
		l.alarm, l.alarmT = nil, due
		if due != 0 {
			d := time.Duration(due - l.rulesNow())
			l.alarm = l.s.cfg.Clock.AfterFunc(max(d, 0), l.s.box.signal)
		}
	}
	<-l.s.box.wake
	l.now = l.s.cfg.Clock.Now()
}

// fire delivers the timers that are due.
func (l *loop) fire() {
	for !l.ended {
		k := l.timers.pop(l.rulesNow())
		if k == nil {
			return
		}
		if k.due == l.alarmT {
			l.alarmT = 0
		}
		l.step(rules.Event{Kind: rules.Timer, Key: k.key})
		l.drain()
	}
}

// drain takes the results of starts that did not block, which come before
// everything that is in the mailbox.
func (l *loop) drain() {
	for len(l.inline) > 0 {
		q := l.inline
		l.inline = nil
		for i := range q {
			l.message(&q[i])
		}
	}
}

func (l *loop) rulesNow() rules.Time { return rules.Time(l.now.Sub(l.s.epoch)) + 1 }

// message turns a message into an event.
func (l *loop) message(m *message) {
	if m.do != nil {
		m.do()
		return
	}
	ev := rules.Event{Kind: m.kind, Key: m.key, Run: m.run}
	k := l.kids[m.key]
	switch m.kind {
	case rules.Started:
		if l.late(m) {
			m.inst.Kill()
			return
		}
		l.up(k, m)
	case rules.StartFailed, rules.Ignored:
		if l.late(m) {
			return
		}
		l.notUp(k, m)
	case rules.Exited:
		if k == nil || k.run != m.run || k.inst == nil {
			return
		}
		l.down(k, m)
		ev.End, ev.Leaked = k.reason.class(), m.leaked != nil
	case rules.Request:
		if !l.address(m.call) {
			return
		}
		l.ticket++
		ev.Call = m.call.Call
		ev.Call.Ticket = l.ticket
		l.calls[l.ticket] = m.call
	case rules.Begin, rules.Timer, rules.Stop, rules.Kill:
	}
	l.step(ev)
}

// late reports whether a start's outcome is that of an abandoned start, which
// thereby is no longer leaked.
func (l *loop) late(m *message) bool {
	k := l.abandoned[m.run]
	if k == nil {
		return false
	}
	delete(l.abandoned, m.run)
	l.unleak(k, 0, k.from)
	return true
}

// up takes note of an instance that came up.
func (l *loop) up(k *kid, m *message) {
	k.inst, k.run, k.info, k.err = m.inst, m.run, nil, nil
	if i, ok := m.inst.(informer); ok {
		k.info = i.Info()
	}
	l.event(Event{Kind: ChildStarted, Path: k.path, Incarnation: l.inc(k) + 1, Took: l.now.Sub(k.from), Cause: k.cause, Info: k.info})
	k.from = l.now
	k.cancel(nil)
	l.touch(k)
	watch(&l.s.box, m.key, m.run, m.inst)
}

// watch posts a message when the instance has ended.
func watch(box *mailbox, key rules.Key, run uint64, inst Instance) {
	ended := func() {
		m := message{kind: rules.Exited, key: key, run: run}
		if lk, ok := inst.(leaker); ok {
			m.leaked = lk.Leaked()
		}
		box.post(m)
	}
	if n, ok := inst.(notifier); ok {
		n.onDone(ended)
		return
	}
	// Owned by the loop; ends with the instance, for which the loop waits.
	go func() {
		<-inst.Done()
		ended()
	}()
}

// notUp takes note of a start that failed or was ignored.
func (l *loop) notUp(k *kid, m *message) {
	k.err = m.err
	if k.given != nil && m.err != nil && !errors.Is(m.err, k.given) { // the reason why the context ended says more
		k.err = fmt.Errorf("%w: %w", k.given, m.err)
	}
	kind, r := ChildIgnored, Reason{}
	if m.kind == rules.StartFailed {
		kind, r = ChildStartFailed, ReasonOf(k.err)
	}
	l.event(Event{Kind: kind, Path: k.path, Incarnation: l.inc(k) + 1, Reason: r, Took: l.now.Sub(k.from)})
	k.cancel(nil)
	l.touch(k)
}

// down takes note of an instance that has ended.
func (l *loop) down(k *kid, m *message) {
	k.reason, k.ended = k.inst.Reason(), true
	kind := ChildExited
	if c := l.state.Children[k.key]; c != nil && c.Phase == rules.Stopping {
		kind = ChildStopped
	}
	l.event(Event{Kind: kind, Path: k.path, Incarnation: l.inc(k), Reason: k.reason, Took: l.now.Sub(k.from), Info: k.info})
	if m.leaked != nil {
		l.leak(k, m)
	}
	k.inst = nil
	l.touch(k)
}

// leak counts what an instance has left behind, until that has ended.
func (l *loop) leak(k *kid, m *message) {
	inc, since, ch := l.inc(k), l.now, m.leaked
	l.addLeak(k, inc)
	// Nobody can end this goroutine before the leaked one ends: it is part of the leak.
	go func() {
		<-ch
		l.s.box.post(message{do: func() { l.unleak(k, inc, since) }})
	}()
}

func (l *loop) addLeak(k *kid, inc uint64) {
	k.leaked++
	l.leaked++
	l.event(Event{Kind: ChildLeaked, Path: k.path, Incarnation: inc})
	l.touch(k)
}

func (l *loop) unleak(k *kid, inc uint64, since time.Time) {
	k.leaked--
	l.leaked--
	l.event(Event{Kind: ChildLeakEnded, Path: k.path, Incarnation: inc, Took: l.now.Sub(since)})
	l.touch(k)
}

func (l *loop) inc(k *kid) uint64 {
	if c := l.state.Children[k.key]; c != nil {
		return c.Inc
	}
	return 0
}

// step lets the rules decide and carries out what they say.
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
	k := l.kids[e.Key]
	switch e.Kind {
	case rules.Start:
		if k == nil { // StartChild: the rules have just made the record
			k = l.adopt(e)
		}
		l.start(k, e)
	case rules.Cancel:
		k.given = ErrStartCancelled
		if e.Late {
			k.given = ErrStartTimeout
		}
		k.cancel(k.given)
	case rules.Abandon:
		k.err = k.given
		l.abandoned[e.Run] = k
		l.event(Event{Kind: ChildStartFailed, Path: k.path, Incarnation: l.inc(k) + 1, Reason: ReasonOf(k.err), Took: l.now.Sub(k.from)})
		l.addLeak(k, 0)
	case rules.Ask:
		l.event(Event{Kind: ChildStopping, Path: k.path, Incarnation: l.inc(k), Cause: l.causePath(e.Cause)})
		l.acts = append(l.acts, k.inst.Stop)
	case rules.Slay:
		if k != nil && k.inst != nil && k.run == e.Run {
			l.acts = append(l.acts, k.inst.Kill)
		}
	case rules.SetTimer:
		l.timers.set(k, e.At)
		l.touch(k)
	case rules.Answer:
		l.answer(e)
	case rules.Report:
		l.report(k, e)
	case rules.Retry:
		l.event(Event{
			Kind: ChildRestarting, Path: k.path, Incarnation: e.Inc, Attempt: e.Attempt,
			Left: e.Left, Max: l.state.Flags.Max, Delay: time.Duration(e.Delay), Reason: k.reason,
		})
	case rules.Moved:
		if k != nil { // else its Start follows, which makes it
			l.touch(k)
		}
	case rules.Forget:
		k.gone = true
		delete(l.kids, k.key)
		if l.ids != nil {
			delete(l.ids, k.spec.ID)
		}
		l.touch(k)
		l.event(Event{Kind: ChildRemoved, Path: k.path})
	case rules.Up:
		l.event(Event{Kind: SupervisorUp, Path: l.s.path, Took: l.now.Sub(l.began)})
	case rules.Terminated:
		l.ended, l.end = true, *e
	}
}

func (l *loop) causePath(k rules.Key) string {
	if c := l.kids[k]; c != nil {
		return c.path
	}
	return ""
}

// start calls the child's Start: on a goroutine of its own, unless it is known not to block.
func (l *loop) start(k *kid, e *rules.Effect) {
	base, cancel := context.WithCancelCause(l.s.base)
	k.cancel, k.given = cancel, nil
	k.from, k.cause = l.now, l.causePath(e.Cause)
	inc := Incarnation{Path: k.path, ID: k.spec.ID, N: e.Inc}
	if _, ok := k.spec.Start.(instant); ok {
		m := startMessage(e)
		callStart(base, k.spec.Start, inc, &m)
		l.inline = append(l.inline, m)
		return
	}
	starter, m, box := k.spec.Start, startMessage(e), &l.s.box
	// Owned by the loop, which waits for the message; Cancel asks it to end,
	// and what is abandoned kills its instance itself.
	l.acts = append(l.acts, func() {
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
