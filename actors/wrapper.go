package actors

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/supervisor"
)

// wrapper stands between protoactor and a user's actor. It runs on the actor's goroutine only. No
// panic of a callback passes it: the first one is the actor's exit reason, and after it only
// Stopping and Stopped are let through.
type wrapper struct {
	inc      *incarnation
	user     actor.Actor // nil until Started, and when the producer failed
	stopping bool        // Stopping was begun
	failed   bool        // a callback has panicked: no more user messages

	watch atomic.Pointer[messageWatch] // nil while its messages are not counted
}

// stopChildrenMessage is the message with which a killed actor stops its children.
type stopChildrenMessage struct{}

var _ actor.SupervisorStrategy = (*wrapper)(nil) // protoactor asserts it

func (w *wrapper) Receive(ctx actor.Context) {
	if w.inc.killed.Load() {
		w.stopChildren(ctx)
		return
	}
	// Lifecycle messages count only when protoactor sends them: any actor can send an actor.Stopped
	// as an ordinary message.
	if w.inc.handlesSystemMessage {
		switch ctx.Message().(type) {
		case *actor.Started:
			w.start(ctx)
			return
		case *actor.Stopping:
			w.stopping = true
			w.inc.stale.Store(true) // protoactor frees the id before Stopped
			w.call(ctx)
			return
		case *actor.Stopped:
			w.call(ctx)
			w.inc.stoppedHandled = true
			return
		case *actor.Restarting:
			return
		}
	}
	if w.failed {
		// Only messages that protoactor's Poison or a child's end bring by.
		return
	}
	if sender := ctx.Sender(); sender != nil && sender.Id == askID {
		w.inc.addUnanswered(sender)
		if do, ok := ctx.Message().(operation); ok {
			w.operate(ctx, do)
			return
		}
	}
	if m := w.watch.Load(); m != nil {
		m.count(ctx.Message())
	}
	w.call(ctx)
}

// start makes the user's actor and lets it handle Started.
func (w *wrapper) start(ctx actor.Context) {
	defer func() {
		w.inc.mu.Lock()
		w.inc.started = !w.failed
		w.inc.mu.Unlock()
		if _, ok := w.user.(Prompt); ok {
			w.inc.box.setPrompt()
		}
		close(w.inc.startDone)
	}()
	w.recovering(ctx, func() {
		w.user = w.inc.produce()
		if w.user == nil {
			panic(exitPanic{errorReason(fmt.Errorf("New of actor %q returned nil", w.inc.id))})
		}
		w.user.Receive(ctx)
		if s, ok := original(w.user).(Summarizer); ok {
			w.inc.summarizer.Store(&s)
		}
		if h := w.inc.predecessor; h != nil {
			w.takeOver(ctx, h)
		}
	})
}

func (w *wrapper) call(ctx actor.Context) {
	if w.user == nil {
		return
	}
	returned := false
	defer w.callbackEnds(ctx, &returned)
	w.user.Receive(ctx)
	returned = true
}

// recovering runs f as a callback.
func (w *wrapper) recovering(ctx actor.Context, f func()) {
	returned := false
	defer w.callbackEnds(ctx, &returned)
	f()
	returned = true
}

// callbackEnds is deferred around a callback. It turns what that panics with into the actor's exit.
func (w *wrapper) callbackEnds(ctx actor.Context, returned *bool) {
	if *returned {
		if w.inc.killed.Load() {
			w.stopChildren(ctx)
		}
		return
	}
	var r supervisor.Reason
	switch v := recover().(type) {
	case nil:
		// runtime.Goexit can not be held back. The mailbox takes over.
		r = errorReason(errGoexit)
	case exitPanic:
		r = v.reason
	default:
		r = panicReason(v, debug.Stack())
	}
	w.failed = true
	if !w.stopping {
		w.inc.crash(r)
		return
	}
	// While it stops, this is its reason. It is logged, since the caller that stopped it may
	// not look at the reason.
	w.inc.setOwnReason(r)
	if r.IsNormal() {
		return
	}
	w.inc.proc.log.Warn("actor failed while stopping", slog.String("actor", w.inc.id), slog.String("reason", r.String()))
}

// stopChildren stops the protoactor children of a killed actor.
func (w *wrapper) stopChildren(ctx actor.Context) {
	for _, child := range slices.Clone(ctx.Children()) { // the live slice changes under us
		ctx.Stop(child)
	}
}

// HandleFailure decides for children that the actor spawned by protoactor's ctx.Spawn, as under
// protoactor: by the actor itself where it is a strategy, else by the default one, which restarts
// in place. What differs is the escalation: it ends this actor, and not the OS process.
func (w *wrapper) HandleFailure(sys *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, rs *actor.RestartStatistics, reason, message any) {
	strategy, ok := w.user.(actor.SupervisorStrategy)
	if !ok {
		strategy = actor.DefaultSupervisorStrategy()
	}
	strategy.HandleFailure(sys, supervisorShim{sup, w.inc}, child, rs, reason, message)
}

// supervisorShim is what a strategy sees of protoactor's supervisor.
type supervisorShim struct {
	actor.Supervisor
	inc *incarnation
}

func (s supervisorShim) EscalateFailure(reason, _ any) {
	s.inc.crash(errorReason(fmt.Errorf("%w: %v", errEscalate, reason)))
}

func (s supervisorShim) Children() []*actor.PID { return slices.Clone(s.Supervisor.Children()) }

// exitPanic is what Exit panics with.
type exitPanic struct{ reason supervisor.Reason }

// Exit ends the calling actor, as exit/1 does in Erlang: for the reason that [supervisor.ReasonOf]
// gives for err, so Normal for nil. From Started it makes [System.Spawn] fail. It must be called on
// the actor's goroutine, that is from Receive, and does not return. Deferred calls run; Stopping
// and Stopped follow.
func Exit(err error) { panic(exitPanic{supervisor.ReasonOf(err)}) }
