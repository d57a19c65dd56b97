package actors

import (
	"cmp"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/supervisor"
)

var (
	errRestart  = errors.New("restart directive: actors are restarted by their supervisor, as new incarnations")
	errGoexit   = errors.New("handler called runtime.Goexit")
	errEscalate = errors.New("failure of a child escalated")
)

// incarnation is one incarnation of an actor: what this package keeps about it, beside protoactor's
// own record.
//
//	starting --Started handled--> up --Stop, panic, Exit--> stopping --Stopped handled--> ended
//	    any --kill--> ended, with the handler that may still run leaked
//
// The exit reason is the first that the actor gives itself, by a panic or Exit, or by being killed;
// else the one for which it was first asked to end. As in Erlang, an actor that fails while it is
// shut down has failed.
type incarnation struct {
	proc  *localProcess
	proto *protoSystem
	table *incarnationTable
	out   surroundings

	id       string
	produce  func() actor.Actor
	box      *actorMailbox
	wrapper  *wrapper
	failures *atomic.Uint64 // of all incarnations of the child; nil: not counted

	predecessor *Handover // what it takes over from another image of the process; nil: nothing

	pid     *actor.PID
	process actor.Process // its entry in protoactor's registry; set by registered

	startDone chan struct{} // closed when Started was handled or has failed
	done      chan struct{} // closed when the actor has ended
	killed    atomic.Bool
	// stale: the id may be a later incarnation's, so that a holder of this pointer has to look the
	// id up again. Set before the id is free.
	stale      atomic.Bool
	summarizer atomic.Pointer[Summarizer] // nil until it is up, and if it is none

	work atomic.Uint32 // workNone, workBusy, workLeaked

	// Of the actor's goroutine only.
	handlesSystemMessage bool // the message being handled is a system message
	stoppedHandled       bool // Stopped was handled

	mu         sync.Mutex
	started    bool
	tookOver   bool
	reasonSet  bool
	ownReason  bool // reason is the actor's own
	reason     supervisor.Reason
	ended      bool
	leaked     chan struct{} // set by kill; closed when no handler runs
	watchers   map[watchKey]func(supervisor.Reason)
	monitors   map[canceler]struct{} // monitors that end with the actor
	unanswered []*actor.PID          // asks taken and, as far as is known, not answered
	pruneAt    int                   // length of unanswered at which the answered ones are removed
}

// surroundings is what the actors of a process need of the rest of the System.
type surroundings interface {
	// undeliverable makes a dead letter of a message and tells its sender.
	undeliverable(target *actor.PID, msg any, sender *actor.PID, err error)
	// askOpen reports whether an ask, of this or another process, may still want an answer.
	askOpen(ask *actor.PID) bool
	// failAsk answers an ask with err.
	failAsk(ask *actor.PID, err error)
}

// canceler is a monitor that ends with the actor that made it.
type canceler interface{ Cancel() }

func newIncarnation(proc *localProcess, proto *protoSystem, table *incarnationTable, out surroundings, spec Spec) *incarnation {
	inc := &incarnation{
		proc:      proc,
		proto:     proto,
		table:     table,
		out:       out,
		id:        spec.Name,
		pid:       actor.NewPID(proc.address, spec.Name),
		produce:   spec.New,
		startDone: make(chan struct{}),
		done:      make(chan struct{}),
		pruneAt:   32,
	}
	peers := cmp.Or(spec.Bound, DefaultBound)
	inc.box = &actorMailbox{incarnation: inc, bound: spec.Bound, peerBound: peers, peerWeight: weightOf(peers), overflow: spec.Overflow}
	inc.wrapper = &wrapper{inc: inc}
	return inc
}

// registered is called when protoactor has registered the actor.
func (inc *incarnation) registered(ctx actor.Context) {
	inc.process, _ = ctx.ActorSystem().ProcessRegistry.GetLocal(inc.id)
	inc.table.add(inc)
}

// setStopReason fixes the reason for which the actor was asked to end, if nothing has before.
func (inc *incarnation) setStopReason(r supervisor.Reason) {
	inc.mu.Lock()
	if !inc.reasonSet {
		inc.reasonSet, inc.reason = true, r
	}
	inc.mu.Unlock()
}

// setOwnReason fixes the reason that the actor gives itself, if it has not before.
func (inc *incarnation) setOwnReason(r supervisor.Reason) {
	inc.mu.Lock()
	if !inc.ownReason && !inc.ended {
		inc.reasonSet, inc.ownReason, inc.reason = true, true, r
	}
	inc.mu.Unlock()
}

// hasStarted reports whether the actor handled Started without failing.
func (inc *incarnation) hasStarted() bool {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	return inc.started
}

func (inc *incarnation) exitReason() supervisor.Reason {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	return inc.reason
}

func (inc *incarnation) downError() error { return &DownError{PID: inc.pid, Reason: inc.exitReason()} }

// stop asks the actor to end.
func (inc *incarnation) stop(r supervisor.Reason) {
	inc.setStopReason(r)
	inc.box.PostSystemMessage(&actor.Stop{})
}

// finish asks the actor to end as a stop frame says.
func (inc *incarnation) finish(how byte) {
	switch how {
	case wire.StopPoison:
		if err := inc.box.post(noContext, &actor.PoisonPill{}, true); err != nil {
			return // it has ended
		}
	case wire.StopShutdown:
		inc.stop(shutdown)
	default:
		inc.stop(normal)
	}
}

// crash ends the actor: Stopping and Stopped still run, user messages do not.
func (inc *incarnation) crash(r supervisor.Reason) {
	inc.setOwnReason(r)
	inc.box.suspend()
	inc.box.PostSystemMessage(&actor.Stop{})
}

// crashOutsideReceive ends an actor after a panic that went around its wrapper. If that happens
// while it is stopping, protoactor does not go on: then the actor is ended here.
func (inc *incarnation) crashOutsideReceive(r supervisor.Reason) {
	if inc.wrapper.stopping {
		inc.setOwnReason(r)
		inc.abandon()
		return
	}
	inc.crash(r)
}

// endIfStopped ends the incarnation if protoactor has finished stopping it. It runs on the actor's
// goroutine.
func (inc *incarnation) endIfStopped() {
	if inc.stoppedHandled && !inc.killed.Load() {
		inc.end()
	}
}

// kill ends the actor at once, as seen from outside: its name is free, its monitors fire, its queue
// becomes dead letters. A handler that is running goes on, leaked, until it returns; then the
// actor's children are stopped and no more callbacks run.
func (inc *incarnation) kill(r supervisor.Reason) {
	inc.setOwnReason(r)
	inc.abandon()
}

func (inc *incarnation) abandon() {
	inc.mu.Lock()
	if inc.ended || inc.killed.Swap(true) {
		inc.mu.Unlock()
		return
	}
	inc.leaked = make(chan struct{})
	inc.mu.Unlock()
	if inc.work.CompareAndSwap(workBusy, workLeaked) {
		inc.proc.leaked.Add(1)
		inc.proc.log.Warn("actor killed in a handler that goes on", slog.String("actor", inc.id))
	} else {
		close(inc.leaked)
	}
	inc.stale.Store(true)
	inc.freeName()
	inc.end()
	// The wrapper sees killed and stops the children on the actor's own goroutine.
	inc.box.stopChildren()
}

// freeName frees the id in protoactor's registry, unless a later incarnation has it.
func (inc *incarnation) freeName() {
	reg := inc.proto.system().ProcessRegistry
	if p, ok := reg.GetLocal(inc.id); ok && p == inc.process {
		reg.Remove(inc.pid)
	}
}

// end makes the end known, once: dead letters, unanswered asks, monitors.
func (inc *incarnation) end() {
	inc.stale.Store(true)
	queued := inc.box.close()
	inc.mu.Lock()
	if inc.ended {
		inc.mu.Unlock()
		return
	}
	inc.ended = true
	reason, watchers, owned, owed := inc.reason, inc.watchers, inc.monitors, inc.unanswered
	inc.watchers, inc.monitors, inc.unanswered = nil, nil, nil
	inc.mu.Unlock()

	inc.table.remove(inc)
	if inc.failures != nil && !reason.IsNormal() {
		inc.failures.Add(1)
	}
	for _, m := range queued {
		inc.deadLetter(m, inc.downError())
	}
	for _, ask := range owed {
		if inc.out.askOpen(ask) {
			inc.out.failAsk(ask, inc.downError())
		}
	}
	for m := range owned {
		m.Cancel()
	}
	for _, fire := range watchers {
		fire(reason)
	}
	close(inc.done)
}

// deadLetter makes a dead letter of a message for this actor.
func (inc *incarnation) deadLetter(message any, err error) {
	_, msg, sender := actor.UnwrapEnvelope(message)
	inc.out.undeliverable(inc.pid, msg, sender, err)
}

// addWatcher arranges for fire to be called once, at the actor's end, on any goroutine. It returns
// false when the actor has ended.
func (inc *incarnation) addWatcher(k watchKey, fire func(supervisor.Reason)) bool {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if inc.ended {
		return false
	}
	if inc.watchers == nil {
		inc.watchers = make(map[watchKey]func(supervisor.Reason))
	}
	inc.watchers[k] = fire
	return true
}

func (inc *incarnation) removeWatcher(k watchKey) {
	inc.mu.Lock()
	delete(inc.watchers, k)
	inc.mu.Unlock()
}

// protoWatch is protoactor's Watch: a Terminated to watcher at the end.
func (inc *incarnation) protoWatch(watcher *actor.PID) {
	k := watchKey{watcher.Address, watcher.Id, 0}
	fire := func(supervisor.Reason) { inc.proto.terminated(watcher, inc.pid, actor.TerminatedReason_Stopped) }
	if !inc.addWatcher(k, fire) {
		inc.proto.terminated(watcher, inc.pid, actor.TerminatedReason_NotFound)
	}
}

// addMonitor lets m end with the actor. It returns false if the actor has ended.
func (inc *incarnation) addMonitor(m canceler) bool {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if inc.ended {
		return false
	}
	if inc.monitors == nil {
		inc.monitors = make(map[canceler]struct{})
	}
	inc.monitors[m] = struct{}{}
	return true
}

func (inc *incarnation) removeMonitor(m canceler) {
	inc.mu.Lock()
	delete(inc.monitors, m)
	inc.mu.Unlock()
}

// addUnanswered remembers an ask that the actor took, so that its end fails the ask.
func (inc *incarnation) addUnanswered(ask *actor.PID) {
	inc.mu.Lock()
	defer inc.mu.Unlock()
	if len(inc.unanswered) >= inc.pruneAt {
		open := inc.unanswered[:0]
		for _, a := range inc.unanswered {
			if inc.out.askOpen(a) {
				open = append(open, a)
			}
		}
		clear(inc.unanswered[len(open):])
		inc.unanswered = open
		inc.pruneAt = max(32, 2*len(open))
	}
	inc.unanswered = append(inc.unanswered, ask)
}

// What the actor's goroutine is doing, for kill to know whether it leaks a handler. The goroutine
// counts as busy from its first message to its last: an actor that is killed between two messages
// counts as leaked for that moment.
const (
	workNone uint32 = iota
	workBusy
	workLeaked
)

func (inc *incarnation) workEnds() {
	if inc.work.Swap(workNone) == workLeaked {
		inc.proc.leaked.Add(-1)
		close(inc.leaked)
	}
}
