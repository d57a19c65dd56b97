package actors

import (
	"context"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
)

// ask sends msg to pid and returns its answer.
func (r *router) ask(ctx context.Context, pid *actor.PID, msg any) (any, error) {
	if msg == nil {
		return nil, errNil
	}
	if r.closed.Load() {
		r.undeliverable(pid, msg, nil, ErrClosed)
		return nil, ErrClosed
	}
	ask, err := r.asks.begin(pid)
	if err != nil {
		return nil, err
	}
	err = r.deliver(ctx, pid, outgoing{message: msg, header: traceHeader(ctx), ask: uint32(ask.ID)})
	if err != nil && !isChannelLost(err) { // lost: Detach will say why
		if r.asks.cancel(ask) {
			r.notSent(pid, msg, err)
			return nil, err
		}
	}
	return r.asks.wait(ctx, ask)
}

// answer takes an answer to the ask that waits for it. One that comes too late is a dead letter.
func (r *router) answer(pid *actor.PID, message any) {
	msg := actor.UnwrapEnvelopeMessage(message)
	if _, ok := msg.(*actor.DeadLetterResponse); ok {
		r.asks.finish(pid.RequestId, nil, ErrNoActor)
		return
	}
	if !r.asks.finish(pid.RequestId, msg, nil) {
		r.undeliverable(pid, msg, nil, ErrNoActor)
	}
}

// askOpen reports whether the ask behind pid, of this or another process, may still want an answer.
func (r *router) askOpen(pid *actor.PID) bool {
	if r.isLocal(pid) {
		return r.asks.has(pid.RequestId)
	}
	return r.inbound.hasAsk(pid)
}

// failAsk answers the ask behind pid with err.
func (r *router) failAsk(pid *actor.PID, err error) {
	if r.isLocal(pid) {
		r.asks.finish(pid.RequestId, nil, err)
		return
	}
	r.inbound.endAsk(pid)
	_ = r.peers.postTo(pid, wire.KindFailed, func(b []byte) []byte { return appendError(b, err) })
}
