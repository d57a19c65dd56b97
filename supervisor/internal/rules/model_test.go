package rules

// This file is the obvious slow model: supervisor.erl's control flow on a list
// of children, written without regard to cost, and synchronous, as OTP is.

type mstate uint8

const (
	undefined mstate = iota
	pid
	restarting
)

type modelChild struct {
	p     Params
	key   Key
	state mstate
	inc   int
	dead  bool  // its exit is in the mailbox, or was swallowed
	end   Class // how it ended, if dead
}

type mmsg struct {
	retry bool
	key   Key
	inc   int
}

type model struct {
	f        Flags
	children []*modelChild
	window   []Time
	now      Time
	mailbox  []mmsg
	lastKey  Key
	up       bool
	plan     []byte
	next     int
	trace    []int
}

// The traces of model and rules are lists of numbers: a code and its arguments.
const (
	tStart = 1000 + iota
	tFail
	tIgnored
	tStop
	tReport
	tAnswer
	tDown
	tChild
)

func (m *model) say(a ...int) { m.trace = append(m.trace, a...) }

func (m *model) outcome() byte {
	m.next++
	return planned(m.plan, m.next)
}

// planned is the outcome of the n-th start: 0 up, 1 failed, 2 ignored.
func planned(plan []byte, n int) byte {
	if len(plan) == 0 {
		return 0
	}
	switch b := plan[n%len(plan)]; {
	case b < 150:
		return 0
	case b < 230:
		return 1
	default:
		return 2
	}
}

// askedEnd is how a fake ends when asked: its StartTimeout field, which the
// model has no other use for, says so.
func askedEnd(p Params) Class {
	switch {
	case p.Shutdown == BrutalKill:
		return Killed
	case p.StartTimeout == 1:
		return Normal
	case p.StartTimeout == 2:
		return Failed
	case p.StartTimeout == 3: // ignores it
		return Killed
	}
	return Shutdown
}

func (m *model) start(c *modelChild) byte {
	o := m.outcome()
	switch o {
	case 0:
		c.inc++
		c.dead = false
		m.say(tStart, int(c.key), c.inc)
	case 1:
		m.say(tFail, int(c.key))
	default:
		m.say(tIgnored, int(c.key))
	}
	return o
}

func (m *model) remove(c *modelChild) {
	for i, k := range m.children {
		if k == c {
			m.children = append(m.children[:i:i], m.children[i+1:]...)
			return
		}
	}
}

// del is del_child.
func (m *model) del(c *modelChild) {
	if c.p.Restart == Temporary || m.f.Strategy == Dynamic {
		m.remove(c)
	}
	c.state = undefined
}

func (m *model) ask(c *modelChild) {
	if c.state == pid && !c.dead {
		c.dead, c.end = true, askedEnd(c.p)
		m.say(tStop, int(c.key), c.inc, int(c.end))
	}
}

// shutdown is do_terminate.
func (m *model) shutdown(c *modelChild) {
	if c.state != pid {
		return
	}
	m.ask(c)
	perm := c.p.Restart == Permanent
	ok := false
	switch c.end {
	case Killed:
		ok = c.p.Shutdown == BrutalKill
	case Shutdown:
		ok = c.p.Shutdown != BrutalKill || !perm
	case Normal, ShutdownDetail:
		ok = !perm
	case Failed:
	}
	if !ok {
		m.say(tReport, int(ShutdownError), int(c.key))
	}
}

// terminateChildren stops these in reverse order; temporary ones are deleted.
func (m *model) terminateChildren(cs []*modelChild) (left []*modelChild) {
	for i := len(cs) - 1; i >= 0; i-- {
		m.shutdown(cs[i])
		cs[i].state = undefined
		if cs[i].p.Restart == Temporary {
			m.remove(cs[i])
		} else {
			left = append([]*modelChild{cs[i]}, left...)
		}
	}
	return left
}

// startChildren starts these in order; it returns the one that failed, if any.
func (m *model) startChildren(cs []*modelChild) *modelChild {
	for _, c := range cs {
		switch m.start(c) {
		case 0:
			c.state = pid
		case 1:
			m.say(tReport, int(StartError), int(c.key))
			return c
		default:
			if c.p.Restart == Temporary {
				m.remove(c)
			}
		}
	}
	return nil
}

func (m *model) down(why Why) {
	if m.f.Strategy == Dynamic {
		for _, c := range m.children { // all at once
			m.ask(c)
		}
		for _, c := range m.children {
			m.shutdown(c)
		}
		m.children = nil
	} else {
		m.terminateChildren(append([]*modelChild(nil), m.children...))
	}
	m.up = false
	m.say(tDown, int(why))
}

func (m *model) begin(ps []Params) {
	for _, p := range ps {
		m.lastKey++
		m.children = append(m.children, &modelChild{p: p, key: m.lastKey})
	}
	m.up = true
	if m.startChildren(append([]*modelChild(nil), m.children...)) != nil {
		m.down(ByStart)
	}
}

func (m *model) find(k Key) *modelChild {
	for _, c := range m.children {
		if c.key == k {
			return c
		}
	}
	return nil
}

func (m *model) run() {
	for m.up && len(m.mailbox) > 0 {
		msg := m.mailbox[0]
		m.mailbox = m.mailbox[1:]
		c := m.find(msg.key)
		if c == nil {
			continue
		}
		if msg.retry {
			if c.state == restarting {
				m.restart(c)
			}
		} else if c.state == pid && c.dead && c.inc == msg.inc {
			m.doRestart(c)
		}
	}
}

func (m *model) doRestart(c *modelChild) {
	fails := c.end.Fails()
	switch {
	case c.p.Restart == Permanent, c.p.Restart == Transient && fails:
		m.say(tReport, int(ChildTerminated), int(c.key))
		m.restart(c)
		return
	case fails:
		m.say(tReport, int(ChildTerminated), int(c.key))
	}
	m.del(c)
	if !c.p.Significant {
		return
	}
	switch m.f.AutoShutdown {
	case AnySignificant:
		m.down(ByAuto)
	case AllSignificant:
		for _, o := range m.children {
			if m.f.Strategy == Dynamic || o.p.Significant && o.state != undefined {
				return
			}
		}
		m.down(ByAuto)
	case Never:
	}
}

func (m *model) restart(c *modelChild) {
	m.window = append([]Time{m.now}, m.window...)
	var kept []Time
	for _, t := range m.window {
		if t >= m.now-Time(m.f.Period) {
			kept = append(kept, t)
		}
	}
	m.window = kept
	if len(m.window) > m.f.Max {
		m.say(tReport, int(GaveUp), int(c.key))
		m.del(c)
		m.down(ByIntensity)
		return
	}
	var group []*modelChild
	switch m.f.Strategy {
	case OneForAll:
		group = append(group, m.children...)
	case RestForOne:
		for i, o := range m.children {
			if o == c {
				group = append(group, m.children[i:]...)
			}
		}
	default:
		switch m.start(c) {
		case 0:
			c.state = pid
		case 1:
			m.say(tReport, int(StartError), int(c.key))
			c.state = restarting
			m.mailbox = append(m.mailbox, mmsg{retry: true, key: c.key})
		default:
			m.del(c) // OTP up to 25 leaves a broken entry in a dynamic supervisor here
		}
		return
	}
	c.state = undefined
	if failed := m.startChildren(m.terminateChildren(group)); failed != nil {
		failed.state = restarting
		m.mailbox = append(m.mailbox, mmsg{retry: true, key: failed.key})
	}
}

func (m *model) call(op Op, p Params, key Key) {
	var c *modelChild
	for _, o := range m.children {
		if m.f.Strategy == Dynamic && op != StartChild && o.key == key || m.f.Strategy != Dynamic && o.p.ID == p.ID {
			c = o
		}
	}
	if m.f.Strategy == Dynamic && op != StartChild && (op != TerminateChild || key == 0) {
		m.say(tAnswer, int(IsDynamic))
		return
	}
	if m.f.Strategy == Dynamic && op == TerminateChild && c == nil {
		if key <= m.lastKey {
			m.say(tAnswer, int(OK))
		} else {
			m.say(tAnswer, int(NotFound))
		}
		return
	}
	switch {
	case op == StartChild && c == nil:
		m.lastKey++
		c = &modelChild{p: p, key: m.lastKey}
		switch m.start(c) {
		case 0:
			c.state = pid
			m.children = append(m.children, c)
			m.say(tAnswer, int(OK))
		case 1:
			m.say(tAnswer, int(Failure))
		default:
			if p.Restart != Temporary && m.f.Strategy != Dynamic {
				m.children = append(m.children, c)
			}
			m.say(tAnswer, int(OKUndefined))
		}
	case c == nil:
		m.say(tAnswer, int(NotFound))
	case op == StartChild && c.state == pid:
		m.say(tAnswer, int(AlreadyStarted))
	case op == StartChild:
		m.say(tAnswer, int(AlreadyPresent))
	case op == TerminateChild:
		m.shutdown(c)
		m.del(c)
		m.say(tAnswer, int(OK))
	case c.state == restarting:
		m.say(tAnswer, int(IsRestarting))
	case c.state == pid:
		m.say(tAnswer, int(IsRunning))
	case op == DeleteChild:
		m.remove(c)
		m.say(tAnswer, int(OK))
	default:
		switch m.start(c) {
		case 0:
			c.state = pid
			m.say(tAnswer, int(OK))
		case 1:
			m.say(tAnswer, int(Failure))
		default:
			m.say(tAnswer, int(OKUndefined))
		}
	}
}

// exit makes a running child end by itself.
func (m *model) exit(key Key, end Class) {
	if c := m.find(key); c != nil && c.state == pid && !c.dead {
		c.dead, c.end = true, end
		m.say(tStop, int(key), c.inc, int(end))
		m.mailbox = append(m.mailbox, mmsg{key: key, inc: c.inc})
	}
}

func (m *model) snapshot() {
	for _, c := range m.children {
		m.say(tChild, int(c.key), int(c.state), c.inc)
	}
}
