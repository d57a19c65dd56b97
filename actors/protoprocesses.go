package actors

import "github.com/asynkron/protoactor-go/actor"

// routedProcess is the actor.Process behind every PID that is not of this process, and behind every
// name. A PID that has found it keeps it; it looks the way up for each message, so that PIDs kept
// for long follow a new holder.
type routedProcess struct{ *router }

// SendUserMessage sends for an actor of this process. It waits for at most SendWait.
func (r routedProcess) SendUserMessage(pid *actor.PID, message any) {
	err := r.deliver(noContext, pid, outgoing{message: message})
	if err != nil {
		_, msg, sender := actor.UnwrapEnvelope(message)
		r.undeliverable(pid, msg, sender, err)
	}
}

// SendSystemMessage sends those system messages that have a meaning between processes. Supervision
// has none: a failure belongs to its process.
func (r routedProcess) SendSystemMessage(pid *actor.PID, message any) {
	switch m := message.(type) {
	case *actor.Watch:
		r.monitors.protoWatch(m.Watcher, pid)
	case *actor.Unwatch:
		r.monitors.protoUnwatch(m.Watcher, pid)
	case *actor.Stop:
		r.postStop(pid)
	}
}

// Stop stops for protoactor's ctx.Stop.
func (r routedProcess) Stop(pid *actor.PID) { r.SendSystemMessage(pid, &actor.Stop{}) }

// ownProcess is the actor.Process of this process's own PID, for protoactor's functions.
type ownProcess struct {
	router *router
	stop   func(from string)
}

func (p ownProcess) SendUserMessage(pid *actor.PID, message any) {
	_, msg, sender := actor.UnwrapEnvelope(message)
	p.router.undeliverable(pid, msg, sender, ErrNoActor)
}

func (p ownProcess) SendSystemMessage(_ *actor.PID, message any) {
	if _, ok := message.(*actor.Stop); ok {
		p.stop(p.router.address)
	}
}

func (p ownProcess) Stop(*actor.PID) { p.SendSystemMessage(nil, &actor.Stop{}) }
