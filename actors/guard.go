package actors

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/supervisor"
)

// guard stands between protoactor and a user's actor. It runs on the actor's
// goroutine only. No panic of a callback passes it: the first one is the
// actor's exit reason, and after it only Stopping and Stopped are let through.
type guard struct {
	c        *cell
	inner    actor.Actor // nil until Started, and when the producer failed
	stopping bool        // Stopping was begun
	failed   bool        // a callback has panicked: no more user messages
}

// reaping is the message with which a killed actor stops its children.
type reaping struct{}

var (
	_ actor.Actor              = (*guard)(nil)
	_ actor.SupervisorStrategy = (*guard)(nil)
)

func (g *guard) Receive(ctx actor.Context) {
	if g.c.killed.Load() {
		g.stopChildren(ctx)
		return
	}
	// Lifecycle messages count only when protoactor sends them: anybody can
	// send an actor.Stopped as an ordinary message.
	if g.c.system {
		switch ctx.Message().(type) {
		case *actor.Started:
			g.start(ctx)
			return
		case *actor.Stopping:
			g.stopping = true
			g.c.over.Store(true) // protoactor frees the id before Stopped
			g.call(ctx)
			return
		case *actor.Stopped:
			g.call(ctx)
			g.c.stopped = true
			return
		case *actor.Restarting:
			return
		}
	}
	if g.failed {
		// Only messages that protoactor's Poison or a child's end bring by.
		return
	}
	if sender := ctx.Sender(); sender != nil && sender.Id == askID {
		g.c.owe(sender)
	}
	g.call(ctx)
}

// start makes the user's actor and lets it handle Started.
func (g *guard) start(ctx actor.Context) {
	defer func() {
		g.c.mu.Lock()
		g.c.started = !g.failed
		g.c.mu.Unlock()
		close(g.c.up)
	}()
	g.guarded(ctx, func() {
		g.inner = g.c.produce()
		if g.inner == nil {
			panic(exit{errorReason(fmt.Errorf("New of actor %q returned nil", g.c.id))})
		}
		g.inner.Receive(ctx)
	})
}

func (g *guard) call(ctx actor.Context) {
	if g.inner == nil {
		return
	}
	g.guarded(ctx, func() { g.inner.Receive(ctx) })
}

// guarded runs f and turns what it panics with into the actor's exit.
func (g *guard) guarded(ctx actor.Context, f func()) {
	returned := false
	defer func() {
		if returned {
			if g.c.killed.Load() {
				g.stopChildren(ctx)
			}
			return
		}
		var r supervisor.Reason
		switch v := recover().(type) {
		case nil:
			// runtime.Goexit can not be held back. The mailbox takes over.
			r = errorReason(errGoexit)
		case exit:
			r = v.reason
		default:
			r = panicReason(v, debug.Stack())
		}
		g.failed = true
		if !g.stopping {
			g.c.crash(r)
			return
		}
		// On the way out it is the reason, and said: whoever asked for the end may not look.
		g.c.exit(r)
		if r.IsNormal() {
			return
		}
		g.c.s.log.Warn("actor failed while stopping", slog.String("actor", g.c.id), slog.String("reason", r.String()))
	}()
	f()
	returned = true
}

// stopChildren stops the protoactor children of a killed actor.
func (g *guard) stopChildren(ctx actor.Context) {
	for _, child := range slices.Clone(ctx.Children()) { // the live slice changes under us
		ctx.Stop(child)
	}
}

// HandleFailure decides for children that the actor spawned by protoactor's
// ctx.Spawn, as under protoactor: by the actor itself where it is a strategy,
// else by the default one, which restarts in place. What differs is the
// escalation: it ends this actor, and not the OS process.
func (g *guard) HandleFailure(sys *actor.ActorSystem, sup actor.Supervisor, child *actor.PID, rs *actor.RestartStatistics, reason, message any) {
	strategy, ok := g.inner.(actor.SupervisorStrategy)
	if !ok {
		strategy = actor.DefaultSupervisorStrategy()
	}
	strategy.HandleFailure(sys, fence{sup, g.c}, child, rs, reason, message)
}

// fence is what a strategy sees of protoactor's supervisor.
type fence struct {
	actor.Supervisor
	c *cell
}

func (f fence) EscalateFailure(reason, _ any) {
	f.c.crash(errorReason(fmt.Errorf("%w: %v", errEscalate, reason)))
}

func (f fence) Children() []*actor.PID { return slices.Clone(f.Supervisor.Children()) }

// exit is what Exit panics with.
type exit struct{ reason supervisor.Reason }

// Exit ends the calling actor, as exit/1 does in Erlang: for the reason that
// [supervisor.ReasonOf] gives for err, so Normal for nil. From Started it makes
// [System.Spawn] fail. It must be called on the actor's goroutine, that is from Receive,
// and does not return. Deferred calls run; Stopping and Stopped follow.
func Exit(err error) { panic(exit{supervisor.ReasonOf(err)}) }
