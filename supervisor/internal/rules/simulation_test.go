package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// simulation is a tree of supervisors whose children are fakes and whose clock is a
// variable. Everything happens on the caller's goroutine: what a fake does at
// once (start, or end when asked) is told to its supervisor at once; what
// takes time waits in queue, and when that is empty the clock moves on.
type simulation struct {
	root     *supervisorDecl
	rootDone string // how the root ended; "": never came up
	rootUp   *fakeSupervisor
	now      rules.Time
	queue    []queued
	timers   []timer
	held     *fakeSupervisor // its queue entries wait (burst)
	calls    uint64
	replies  map[uint64]string
	adding   map[uint64]*decl // start_child under way, by From

	plans   map[string][]string     // outcomes of the next starts, by path
	starts  map[string]int          // incarnations so far, by path
	current map[string]*fakeProcess // the latest instance, by path
	onstop  map[string]string       // overrides, by path

	gate  *gate
	early bool // race: the operation comes before the attempt has failed

	ev, rep []string

	// swap, if set, is applied to every state before and after each step.
	swap func(*rules.State) *rules.State
}

type queued struct {
	to *fakeSupervisor
	ev rules.Event
}

type timer struct {
	to *fakeSupervisor
	k  rules.Key
	at rules.Time
}

// gate holds the next start of path by one supervisor.
type gate struct {
	path string
	by   *fakeSupervisor
	hit  *rules.Effect // the start that is held
}

// fakeProcess is one instance: of a worker, or of a supervisor.
type fakeProcess struct {
	d     *decl
	path  string
	inc   int
	alive bool
	by    *fakeSupervisor
	key   rules.Key
	run   uint64
	sup   *fakeSupervisor // if it is a supervisor
}

func (p *fakeProcess) name() string { return fmt.Sprintf("%s#%d", p.path, p.inc) }

// fakeSupervisor is one instance of a supervisor.
type fakeSupervisor struct {
	w        *simulation
	path     string
	d        *supervisorDecl
	self     *fakeProcess // nil for the root
	state    *rules.State
	children map[rules.Key]*childState
	sync     []rules.Event // what fakes did at once
	busy     bool
	up       bool
	ended    bool
	reason   string   // valid once ended
	errs     []string // reasons of ends not as asked, when all stop together
}

// childState is what the simulation keeps of a child beside the rules' record.
type childState struct {
	d      *decl
	path   string
	proc   *fakeProcess
	reason string // of the latest end
	why    string // of the latest failed start
	info   bool
}

func newSimulation(root *supervisorDecl) *simulation {
	return &simulation{
		root: root, now: rules.Time(time.Hour),
		replies: map[uint64]string{}, adding: map[uint64]*decl{}, plans: map[string][]string{}, starts: map[string]int{},
		current: map[string]*fakeProcess{}, onstop: map[string]string{},
	}
}

func (w *simulation) note(format string, a ...any) { w.ev = append(w.ev, fmt.Sprintf(format, a...)) }

// newSup makes a supervisor and starts its children. It returns OTP's error if
// that failed, and "" while a start is held.
func (w *simulation) newSup(path string, d *supervisorDecl, self *fakeProcess) (*fakeSupervisor, string) {
	if bad := d.check(); bad != "" {
		return nil, bad
	}
	s := &fakeSupervisor{w: w, path: path, d: d, self: self, children: map[rules.Key]*childState{}}
	var params []rules.Params
	if d.flags.Strategy != rules.Dynamic {
		for i, k := range d.children {
			params = append(params, k.params)
			s.children[rules.Key(i+1)] = &childState{d: k, path: k.path}
		}
	}
	s.state = rules.New(d.flags, params)
	s.step(rules.Event{Kind: rules.Begin})
	for !s.up && !s.ended { // the roll-back waits for a child that ignores its stop
		w.wait()
	}
	if s.ended {
		return nil, s.reason
	}
	return s, ""
}

// step gives one event to the rules, and then what the fakes did about it.
func (s *fakeSupervisor) step(ev rules.Event) {
	s.sync = append(s.sync, ev)
	if s.busy {
		return
	}
	s.busy = true
	for len(s.sync) > 0 {
		ev := s.sync[0]
		s.sync = s.sync[1:]
		if s.w.swap != nil {
			s.state = s.w.swap(s.state)
		}
		effects := slices.Clone(s.state.Step(s.w.now, ev))
		for i := range effects {
			s.effect(&effects[i])
		}
	}
	s.busy = false
}

// effect does what an effect says.
func (s *fakeSupervisor) effect(e *rules.Effect) {
	w, k := s.w, s.children[e.Key]
	switch e.Kind {
	case rules.Start:
		s.start(e)
	case rules.StopInstance:
		k.proc.ask()
	case rules.KillInstance:
		if k.proc != nil && k.proc.run == e.Run {
			k.proc.kill()
		}
	case rules.SetTimer:
		w.timers = slices.DeleteFunc(w.timers, func(t timer) bool { return t.to == s && t.k == e.Key })
		if e.At > w.now {
			w.timers = append(w.timers, timer{s, e.Key, e.At})
		} else if e.At > 0 {
			w.queue = append(w.queue, queued{s, rules.Event{Kind: rules.Timer, Key: e.Key}})
		}
	case rules.Answer:
		w.replies[e.From] = s.reply(e, k)
	case rules.Report:
		s.report(e, k)
	case rules.Forget:
		delete(s.children, e.Key)
	case rules.Up:
		s.up = true
	case rules.Terminated:
		s.terminated(e)
	case rules.Cancel, rules.Abandon, rules.Retry, rules.Moved:
	}
}

// start plays a start of a child by its plan.
func (s *fakeSupervisor) start(e *rules.Effect) {
	w, k := s.w, s.children[e.Key]
	if k == nil { // a start_child: the rules have just made the record
		d := w.adding[e.From]
		k = &childState{d: d, path: d.path}
		s.children[e.Key] = k
	}
	if g := w.gate; g != nil && g.hit == nil && g.by == s && g.path == k.path {
		g.hit = e
		return
	}
	outcome := "ok"
	if p := w.plans[k.path]; len(p) > 0 {
		outcome, w.plans[k.path] = p[0], p[1:]
	}
	if k.d.sup != nil && outcome != "error" && outcome != "ignore" {
		s.startSup(e, k)
		return
	}
	ev := rules.Event{Kind: rules.StartFailed, Key: e.Key, Run: e.Run}
	k.info = outcome == "extra"
	switch outcome {
	case "error", "raise", "badreturn":
		k.why = map[string]string{"error": "planned", "raise": "EXIT:planned", "badreturn": "weird"}[outcome]
		w.note("startfail %s", k.path)
	case "ignore":
		ev.Kind = rules.Ignored
		w.note("ignored %s", k.path)
	default:
		ev.Kind = rules.Started
		s.launch(e, k, nil)
	}
	s.sync = append(s.sync, ev)
}

// launch makes the instance that came up.
func (s *fakeSupervisor) launch(e *rules.Effect, k *childState, child *fakeSupervisor) {
	w := s.w
	w.starts[k.path]++
	k.proc = &fakeProcess{d: k.d, path: k.path, inc: w.starts[k.path], alive: true, by: s, key: e.Key, run: e.Run, sup: child}
	if child != nil {
		child.self = k.proc
	}
	w.current[k.path] = k.proc
	w.note("start %s", k.proc.name())
}

func (s *fakeSupervisor) startSup(e *rules.Effect, k *childState) {
	child, why := s.w.newSup(k.path, k.d.sup, nil)
	ev := rules.Event{Kind: rules.Started, Key: e.Key, Run: e.Run}
	if why != "" {
		ev.Kind, k.why = rules.StartFailed, why
		s.w.note("startfail %s", k.path)
	} else {
		s.launch(e, k, child)
	}
	s.sync = append(s.sync, ev)
}

// ask is the stop request.
func (p *fakeProcess) ask() {
	switch {
	case !p.alive: // its end is on the way
	case p.d.params.Shutdown == 0 && (p.by.d.flags.Strategy != rules.Dynamic || p.by.state.Work != rules.StopWork):
		// The kill follows at once: it is there before the child has reacted.
		// Where all are stopped together OTP has a timer first, and they do react.
	case p.sup != nil:
		p.sup.reason = "shutdown"
		p.sup.step(rules.Event{Kind: rules.Stop})
	default:
		how := p.d.onstop
		if o, ok := p.by.w.onstop[p.path]; ok {
			how = o
		}
		switch how {
		case "ignore":
		case "":
			p.die("shutdown")
		default:
			p.die(how)
		}
	}
}

// kill ends an instance by force. A supervisor's children end with it: workers
// killed, supervisors in order, as when their parent dies (supervisor(3)).
func (p *fakeProcess) kill() {
	if !p.alive {
		return
	}
	if p.sup != nil {
		p.die("killed")
		p.sup.orphan()
		return
	}
	p.die("killed")
}

// orphan is what follows for the children of a supervisor that was killed.
func (s *fakeSupervisor) orphan() {
	s.ended = true
	s.w.timers = slices.DeleteFunc(s.w.timers, func(t timer) bool { return t.to == s })
	s.w.queue = slices.DeleteFunc(s.w.queue, func(q queued) bool { return q.to == s })
	for _, k := range s.inOrder() {
		p := s.children[k].proc
		if p == nil || !p.alive {
			continue
		}
		p.by = nil // the supervisor gets no notice any more
		if p.sup == nil {
			p.alive = false
			s.w.note("stop %s killed", p.name())
		} else {
			p.sup.reason = "killed"
			p.sup.step(rules.Event{Kind: rules.Stop})
		}
	}
}

// die ends an instance and tells its supervisor: at once if that waits for it,
// else by its mailbox.
func (p *fakeProcess) die(reason string) {
	p.alive = false
	w := p.simulation()
	w.note("stop %s %s", p.name(), reason)
	if p.by == nil || p.by.ended {
		return
	}
	s := p.by
	if k := s.children[p.key]; k != nil && k.proc == p {
		k.reason = reason
	}
	ev := rules.Event{Kind: rules.Exited, Key: p.key, Run: p.run, End: class(reason)}
	if c := s.state.Children[p.key]; c != nil && c.Run == p.run && c.Phase == rules.Stopping {
		s.step(ev)
		return
	}
	w.queue = append(w.queue, queued{s, ev})
}

func (p *fakeProcess) simulation() *simulation {
	if p.sup != nil {
		return p.sup.w
	}
	return p.by.w
}

// terminated is the end of a supervisor of its own or by order.
func (s *fakeSupervisor) terminated(e *rules.Effect) {
	s.ended = true
	switch e.Why {
	case rules.ByOrder: // reason was set with the order
	case rules.ByStart:
		k := s.children[e.Key]
		if k != nil { // else report has set the reason: the record is gone already
			s.reason = "shutdown failed_to_start_child " + k.d.params.ID + " " + k.why
		}
	default:
		s.reason = "shutdown"
	}
	s.aggregate()
	switch {
	case !s.up: // its start fails
	case s.self != nil:
		s.self.die(s.reason)
	default:
		s.w.rootUp, s.w.rootDone = nil, s.reason
	}
}

// report records what OTP logs at error level.
func (s *fakeSupervisor) report(e *rules.Effect, k *childState) {
	who := k.d.params.ID
	if e.Known {
		who = k.path
	}
	switch e.Context {
	case rules.ChildTerminated:
		s.log("child_terminated %s %s", who, k.reason)
	case rules.StartError:
		if s.state.Work == rules.InitWork || !s.up {
			s.reason = "shutdown failed_to_start_child " + k.d.params.ID + " " + k.why
		}
		s.log("start_error %s %s", who, k.why)
	case rules.ShutdownError:
		if s.d.flags.Strategy == rules.Dynamic && s.state.Work >= rules.StopWork {
			s.errs = append(s.errs, k.reason)
			return
		}
		s.log("shutdown_error %s %s", who, k.reason)
	case rules.GaveUp:
		s.log("shutdown %s reached_max_restart_intensity", who)
	case rules.Persisted: // beyond OTP, which never does
	}
}

// aggregate reports the children of a dynamic supervisor that did not stop as
// asked: one report a reason.
func (s *fakeSupervisor) aggregate() {
	n := map[string]int{}
	for _, r := range s.errs {
		n[r]++
	}
	var lines []string
	for r, c := range n {
		lines = append(lines, fmt.Sprintf("shutdown_error *%d %s", c, r))
	}
	slices.Sort(lines)
	s.w.rep = append(s.w.rep, lines...)
	s.errs = nil
}

func (s *fakeSupervisor) log(format string, a ...any) {
	s.w.rep = append(s.w.rep, fmt.Sprintf(format, a...))
}

// reply renders an answer as the recordings do.
func (s *fakeSupervisor) reply(e *rules.Effect, k *childState) string {
	switch e.Reply {
	case rules.OK:
		if k == nil || k.proc == nil || !k.proc.alive {
			return "ok"
		}
		if k.info {
			return "ok " + k.proc.name() + " info=info"
		}
		return "ok " + k.proc.name()
	case rules.OKUndefined:
		return "ok undefined"
	case rules.AlreadyStarted:
		return "error already_started " + k.proc.name()
	case rules.AlreadyPresent:
		return "error already_present"
	case rules.NotFound:
		return "error not_found"
	case rules.IsRunning:
		return "error running"
	case rules.IsRestarting:
		return "error restarting"
	case rules.IsDynamic:
		return "error simple_one_for_one"
	case rules.Failure:
		return "error " + k.why
	default:
		return "noproc"
	}
}

// pump lets everything happen that is due, up to now.
func (w *simulation) pump() {
	for {
		i := slices.IndexFunc(w.queue, func(q queued) bool { return q.to != w.held })
		if i < 0 || w.gate != nil && w.gate.hit != nil {
			return
		}
		q := w.queue[i]
		w.queue = slices.Delete(w.queue, i, i+1)
		q.to.step(q.ev)
	}
}

// settle pumps until nothing waits, moving the clock on for
// shutdown times and back-off delays.
func (w *simulation) settle() {
	for {
		w.pump()
		if len(w.timers) == 0 || w.gate != nil && w.gate.hit != nil {
			return
		}
		w.fire(w.nextTimer())
	}
}

// wait lets the next awaited thing happen.
func (w *simulation) wait() {
	if i := slices.IndexFunc(w.queue, func(q queued) bool { return q.ev.Kind == rules.Timer }); i >= 0 {
		q := w.queue[i]
		w.queue = slices.Delete(w.queue, i, i+1)
		q.to.step(q.ev)
		return
	}
	w.fire(w.nextTimer())
}

func (w *simulation) nextTimer() int {
	first := 0
	for i, t := range w.timers {
		if t.at < w.timers[first].at {
			first = i
		}
	}
	return first
}

func (w *simulation) fire(i int) {
	t := w.timers[i]
	w.timers = slices.Delete(w.timers, i, i+1)
	w.now = max(w.now, t.at)
	t.to.step(rules.Event{Kind: rules.Timer, Key: t.k})
}

// advance moves the clock, firing what falls due on the way.
func (w *simulation) advance(d time.Duration) {
	end := w.now + rules.Time(d)
	for w.pump(); len(w.timers) > 0 && w.timers[w.nextTimer()].at <= end; w.pump() {
		w.fire(w.nextTimer())
	}
	w.now = end
}

// request sends a call and returns its From. Added is the new child, if any.
func (s *fakeSupervisor) request(c rules.Call, added *decl) uint64 {
	s.w.calls++
	c.From = s.w.calls
	s.w.adding[c.From] = added
	s.step(rules.Event{Kind: rules.Request, Call: c})
	return c.From
}

// inOrder returns the children's keys in start order.
func (s *fakeSupervisor) inOrder() []rules.Key {
	keys := make([]rules.Key, 0, len(s.children))
	for k := range s.children {
		keys = append(keys, k)
	}
	slices.Sort(keys) // keys count up as children are added at the end
	return keys
}

// render shows the children as the recordings do; deep descends.
func (s *fakeSupervisor) render(deep bool) string {
	var out []string
	for _, key := range s.inOrder() {
		c, k := s.state.Children[key], s.children[key]
		if c == nil || c.New && c.Phase == rules.Starting {
			continue
		}
		id := k.d.params.ID
		if s.d.flags.Strategy == rules.Dynamic {
			id = "undefined"
		}
		switch {
		case c.Phase == rules.Waiting || c.Phase == rules.Starting && c.Automatic:
			out = append(out, id+"~")
		case c.Phase == rules.Down:
			out = append(out, id+"-")
		case deep && k.proc.sup != nil:
			out = append(out, k.proc.name()+"["+k.proc.sup.render(true)+"]")
		default:
			out = append(out, k.proc.name())
		}
	}
	if s.d.flags.Strategy == rules.Dynamic {
		slices.Sort(out)
	}
	return strings.Join(out, " ")
}

func (s *fakeSupervisor) counts() []int {
	st := s.state
	specs := st.Specs
	if st.Flags.Strategy == rules.Dynamic {
		specs = 1
	}
	return []int{specs, st.Live, st.Supers, st.Specs - st.Supers}
}

// class is what the rules need to know of a reason.
func class(reason string) rules.Class {
	switch {
	case reason == "normal":
		return rules.Normal
	case reason == "shutdown":
		return rules.Shutdown
	case strings.HasPrefix(reason, "shutdown:"):
		return rules.ShutdownDetail
	case reason == "killed":
		return rules.Killed
	default:
		return rules.Failed
	}
}
