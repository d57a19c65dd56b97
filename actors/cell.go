package actors

import (
	"cmp"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/supervisor"
)

var (
	errRestart  = errors.New("restart directive: actors are restarted by their supervisor, as new incarnations")
	errGoexit   = errors.New("handler called runtime.Goexit")
	errEscalate = errors.New("failure of a child escalated")
)

// cell is one incarnation of an actor: what this package knows of it besides
// what protoactor does.
//
//	starting --Started handled--> up --Stop, panic, Exit--> stopping --Stopped handled--> ended
//	    any --kill--> ended, with the handler that may still run leaked
//
// The reason is the first that the actor gives itself, by a panic or Exit or by being
// killed; else the one for which it was first asked to end. So it is with a process of
// Erlang: one that is shut down and fails on its way out has failed.
type cell struct {
	s        *System
	id       string
	produce  func() actor.Actor
	box      *mailbox
	guard    *guard
	failures *atomic.Uint64 // of all incarnations of the child; nil: not counted

	pid     *actor.PID
	process actor.Process // this incarnation's entry in protoactor's registry; set by born

	up     chan struct{} // closed when Started was handled or has failed
	done   chan struct{} // closed when the actor has ended
	killed atomic.Bool
	over   atomic.Bool   // its id may be a later incarnation's: who has kept the cell looks it up again; set before the id is free
	work   atomic.Uint32 // workNone, workBusy, workLeaked

	system  bool // the message being handled is a system message; the actor's goroutine only
	stopped bool // Stopped was handled; the actor's goroutine only

	mu       sync.Mutex
	started  bool
	decided  bool
	its      bool // reason is the actor's own
	reason   supervisor.Reason
	ended    bool
	leaked   chan struct{} // set by kill; closed when no handler runs
	watchers map[watchKey]func(supervisor.Reason)
	owned    map[*Monitor]struct{} // monitors that end with the actor
	owed     []*actor.PID          // asks taken and, for all we know, not answered
	prune    int                   // length of owed at which to look for answered ones
}

// watchKey names who wants to know of an actor's end: a watcher's PID, a remote
// system's monitor, or a local one (by its pointer).
type watchKey struct {
	address string
	id      string
	ref     uint64
}

func newCell(s *System, spec Spec) *cell {
	c := &cell{
		s:       s,
		id:      spec.Name,
		pid:     actor.NewPID(s.cfg.Address, spec.Name),
		produce: spec.New,
		up:      make(chan struct{}),
		done:    make(chan struct{}),
		prune:   32,
	}
	peers := cmp.Or(spec.Bound, DefaultBound)
	c.box = &mailbox{cell: c, bound: spec.Bound, peers: peers, weight: weightOf(peers), overflow: spec.Overflow}
	c.guard = &guard{c: c}
	return c
}

// born is called when protoactor has registered the actor.
func (c *cell) born(ctx actor.Context) {
	c.process, _ = ctx.ActorSystem().ProcessRegistry.GetLocal(c.id)
	c.s.cells.add(c)
}

// decide fixes the reason for which the actor was asked to end, if nothing has before.
func (c *cell) decide(r supervisor.Reason) {
	c.mu.Lock()
	if !c.decided {
		c.decided, c.reason = true, r
	}
	c.mu.Unlock()
}

// exit fixes the reason that the actor gives itself, if it has not before.
func (c *cell) exit(r supervisor.Reason) {
	c.mu.Lock()
	if !c.its && !c.ended {
		c.decided, c.its, c.reason = true, true, r
	}
	c.mu.Unlock()
}

func (c *cell) exitReason() supervisor.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

func (c *cell) downError() error { return &DownError{PID: c.pid, Reason: c.exitReason()} }

// stop asks the actor to end.
func (c *cell) stop(r supervisor.Reason) {
	c.decide(r)
	c.box.PostSystemMessage(&actor.Stop{})
}

// finish asks the actor to end as a stop frame says.
func (c *cell) finish(how byte) {
	switch how {
	case stopPoison:
		if err := c.box.post(noContext, &actor.PoisonPill{}, true); err != nil {
			return // it has ended
		}
	case stopShutdown:
		c.stop(shutdown)
	default:
		c.stop(normal)
	}
}

// crash ends the actor: Stopping and Stopped still run, user messages do not.
func (c *cell) crash(r supervisor.Reason) {
	c.exit(r)
	c.box.hold()
	c.box.PostSystemMessage(&actor.Stop{})
}

// backstop ends an actor after a panic that went around its guard. In the
// middle of stopping protoactor can not be made to go on, so that we end it here.
func (c *cell) backstop(r supervisor.Reason) {
	if c.guard.stopping {
		c.exit(r)
		c.abandon()
		return
	}
	c.crash(r)
}

// settle ends the cell when protoactor has finished stopping it. On the actor's goroutine.
func (c *cell) settle() {
	if c.stopped && !c.killed.Load() {
		c.end()
	}
}

// kill ends the actor at once, for the world: its name is free, its monitors
// fire, its queue becomes dead letters. A handler that is running goes on, leaked,
// until it returns; then the actor's children are stopped and no more callbacks run.
func (c *cell) kill(r supervisor.Reason) {
	c.exit(r)
	c.abandon()
}

func (c *cell) abandon() {
	c.mu.Lock()
	if c.ended || c.killed.Swap(true) {
		c.mu.Unlock()
		return
	}
	c.leaked = make(chan struct{})
	c.mu.Unlock()
	if c.work.CompareAndSwap(workBusy, workLeaked) {
		c.s.leaked.Add(1)
		c.s.log.Warn("actor killed in a handler that goes on", slog.String("actor", c.id))
	} else {
		close(c.leaked)
	}
	c.over.Store(true)
	c.release()
	c.end()
	// The guard sees killed and stops the children on the actor's own goroutine.
	c.box.reap()
}

// release frees the id in protoactor's registry, unless a later incarnation has it.
func (c *cell) release() {
	reg := c.s.Actor().ProcessRegistry
	if p, ok := reg.GetLocal(c.id); ok && p == c.process {
		reg.Remove(c.pid)
	}
}

// end makes the end known, once: dead letters, unanswered asks, monitors.
func (c *cell) end() {
	c.over.Store(true)
	queued := c.box.close()
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended = true
	reason, watchers, owned, owed := c.reason, c.watchers, c.owned, c.owed
	c.watchers, c.owned, c.owed = nil, nil, nil
	c.mu.Unlock()

	c.s.cells.remove(c)
	if c.failures != nil && !reason.IsNormal() {
		c.failures.Add(1)
	}
	for _, m := range queued {
		c.dead(m, c.downError())
	}
	for _, ask := range owed {
		if c.s.askOpen(ask) {
			c.s.failAsk(ask, c.downError())
		}
	}
	for m := range owned {
		m.Cancel()
	}
	for _, fire := range watchers {
		fire(reason)
	}
	close(c.done)
}

// dead makes a dead letter of a message for this actor.
func (c *cell) dead(message any, err error) {
	_, msg, sender := actor.UnwrapEnvelope(message)
	c.s.undeliverable(c.pid, msg, sender, err)
}

// onEnd arranges for fire to be called once, at the actor's end, on any
// goroutine. It returns false when the actor has ended.
func (c *cell) onEnd(k watchKey, fire func(supervisor.Reason)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if c.watchers == nil {
		c.watchers = make(map[watchKey]func(supervisor.Reason))
	}
	c.watchers[k] = fire
	return true
}

func (c *cell) offEnd(k watchKey) {
	c.mu.Lock()
	delete(c.watchers, k)
	c.mu.Unlock()
}

// watch is protoactor's Watch: a Terminated to watcher at the end.
func (c *cell) watch(watcher *actor.PID) {
	k := watchKey{watcher.Address, watcher.Id, 0}
	fire := func(supervisor.Reason) { c.s.terminated(watcher, c.pid, actor.TerminatedReason_Stopped) }
	if !c.onEnd(k, fire) {
		c.s.terminated(watcher, c.pid, actor.TerminatedReason_NotFound)
	}
}

func (c *cell) unwatch(watcher *actor.PID) {
	c.offEnd(watchKey{watcher.Address, watcher.Id, 0})
}

// own ties m to the life of the actor. It returns false when the actor has ended.
func (c *cell) own(m *Monitor) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	if c.owned == nil {
		c.owned = make(map[*Monitor]struct{})
	}
	c.owned[m] = struct{}{}
	return true
}

func (c *cell) disown(m *Monitor) {
	c.mu.Lock()
	delete(c.owned, m)
	c.mu.Unlock()
}

// owe remembers an ask that the actor took, so that its end fails the ask.
func (c *cell) owe(ask *actor.PID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.owed) >= c.prune {
		open := c.owed[:0]
		for _, a := range c.owed {
			if c.s.askOpen(a) {
				open = append(open, a)
			}
		}
		clear(c.owed[len(open):])
		c.owed = open
		c.prune = max(32, 2*len(open))
	}
	c.owed = append(c.owed, ask)
}

// What the actor's goroutine is doing, for kill to know whether it leaks a
// handler. It counts as busy from its first message to its last: one that is killed
// between two messages is leaked for that moment.
const (
	workNone uint32 = iota
	workBusy
	workLeaked
)

func (c *cell) enter() { c.work.Store(workBusy) }

func (c *cell) leave() {
	if c.work.Swap(workNone) == workLeaked {
		c.s.leaked.Add(-1)
		close(c.leaked)
	}
}
