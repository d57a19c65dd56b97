package actors

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
)

// router delivers messages: to the actors of this process, and to other processes.
type router struct{ *parts }

var errNil = fmt.Errorf("%w: message is nil", ErrMalformed)

// send sends msg with the span of ctx, and waits under wait; if that is atOnce, not at all.
func (r *router) send(ctx, wait context.Context, pid *actor.PID, msg any) error {
	if msg == nil {
		return errNil
	}
	if r.closed.Load() {
		r.undeliverable(pid, msg, nil, ErrClosed)
		return ErrClosed
	}
	var err error
	if h := traceHeader(ctx); h == nil && pid != nil && r.isLocal(pid) {
		err = r.deliverLocal(wait, pid, msg)
	} else {
		err = r.deliver(wait, pid, outgoing{message: msg, header: h})
	}
	switch {
	case err == nil:
	case wait == atOnce && (errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy)):
		return ErrBusy // and nothing has become of it
	default:
		r.notSent(pid, msg, err)
	}
	return err
}

// notSent makes a dead letter of a message whose sender learns err. Handles that cannot leave the
// host stay the sender's.
func (r *router) notSent(pid *actor.PID, msg any, err error) {
	if errors.Is(err, ErrForeign) {
		r.dead.record(newDeadLetter(pid, msg, nil, err))
		return
	}
	r.undeliverable(pid, msg, nil, err)
}

// outgoing is a message on its way. What goes to another process needs no envelope.
type outgoing struct {
	message any               // bare; in its envelope, if there is neither of the others
	header  map[string]string // of a bare one, not shared; nil: none
	ask     uint32            // the ask of this process that it is; 0: none
}

func (o outgoing) bare() bool { return o.header == nil && o.ask == 0 }

// inEnvelope returns the message as it is delivered in this process.
func (r *router) inEnvelope(o outgoing) any {
	if o.bare() {
		return o.message
	}
	m := &actor.MessageEnvelope{Header: o.header, Message: o.message}
	if o.ask != 0 {
		m.Sender = r.asks.pid(o.ask)
	}
	return m
}

// deliver delivers a message to pid. After an error it is the caller's to make a dead letter of.
// Under noContext it waits for at most SendWait.
func (r *router) deliver(ctx context.Context, pid *actor.PID, o outgoing) error {
	if pid == nil {
		return ErrNoActor
	}
	if r.isLocal(pid) {
		return r.deliverLocal(ctx, pid, r.inEnvelope(o))
	}
	if name, ok := r.nameOf(pid); ok {
		target, err := r.names.resolve(ctx, name)
		if err != nil {
			return err
		}
		if r.isLocal(target) {
			return r.deliverLocal(ctx, target, r.inEnvelope(o))
		}
		pid = target
	}
	return r.sendRemote(ctx, pid, o)
}

// locate calls f with the PID that a notice for pid goes to: one with an address. It does not wait.
// If the master must be asked for a name, f is called when it has answered, before messages that
// are sent to the name after this call.
func (r *router) locate(pid *actor.PID, f func(target *actor.PID, err error)) {
	if pid == nil {
		f(nil, ErrNoActor)
	} else if name, ok := r.nameOf(pid); ok {
		r.names.locate(name, f)
	} else {
		f(pid, nil)
	}
}

func (r *router) deliverLocal(ctx context.Context, target *actor.PID, message any) error {
	if inc := r.local.find(target.Id); inc != nil {
		return inc.box.post(ctx, message, false)
	}
	if target.Id == askID {
		r.answer(target, message)
		return nil
	}
	ref, ok := r.proto.process(target.Id)
	if !ok || target.Id == processID {
		return ErrNoActor
	}
	ref.SendUserMessage(target, message)
	return nil
}

// notify sends an answer or a notice. It does not wait and returns no error.
func (r *router) notify(pid *actor.PID, msg any) {
	r.locate(pid, func(target *actor.PID, err error) {
		switch {
		case err != nil: // the receiver of the notice has ended
		case !r.isLocal(target):
			r.postMessage(target, msg)
		default:
			if inc := r.local.find(target.Id); inc != nil {
				if inc.box.post(noContext, msg, true) == nil {
					return
				}
			} else if r.deliverLocal(noContext, target, msg) == nil {
				return
			}
			r.dead.record(newDeadLetter(target, msg, nil, ErrNoActor))
		}
	})
}

// sendRemote sends a message to a PID of another process.
func (r *router) sendRemote(ctx context.Context, target *actor.PID, o outgoing) error {
	p, err := r.peers.route(target.Address)
	if err != nil {
		return err
	}
	header, msg, sender := o.header, o.message, (*actor.PID)(nil)
	var asker actor.PID
	if o.bare() {
		header, msg, sender = unwrap(msg)
	} else if o.ask != 0 {
		sender = &asker
		asker.Address, asker.Id, asker.RequestId = r.address, askID, o.ask
	}
	if err := p.canRead(msg); err != nil {
		return err
	}
	if p.foreign {
		if _, carries := msg.(HandleCarrier); carries {
			return ErrForeign
		}
	}
	fb := getFrameBuffer()
	defer fb.free()
	if err := r.encode(fb, target, header, msg, sender); err != nil {
		return err
	}
	f := &fb.frame
	ask := sender != nil && sender.Id == askID
	if ask && r.isLocal(sender) {
		r.asks.sentTo(sender.RequestId, target.Address, &p.asksWaiting)
		f.More = p.asksWaiting.Load() > batchFrom
	}
	if target.Id == askID {
		f.More = r.inbound.endAsk(target) > batchFrom
	}
	if err := p.send(ctx, f); err != nil {
		recoverHandles(f.Handles)
		return err
	}
	if ask && !r.isLocal(sender) {
		r.inbound.endAsk(sender) // passed on: the answer goes to the asker directly
	}
	return nil
}

// batchFrom is how many asks to another process, or from it, must be in flight for the next frame
// to wait for others that can leave with it: with as many in flight, others follow at once.
const batchFrom = 3

// postMessage sends an answer or a notice that is a user message.
func (r *router) postMessage(target *actor.PID, msg any) {
	p, err := r.peers.route(target.Address)
	if err == nil {
		err = p.canRead(msg)
	}
	if _, carries := msg.(HandleCarrier); carries && err == nil && p.foreign {
		err = ErrForeign
	}
	if err == nil {
		fb := getFrameBuffer()
		defer fb.free()
		if err = r.encode(fb, target, nil, msg, nil); err == nil {
			p.post(fb.frame, func(b []byte) []byte { return append(b, fb.buf...) })
			return
		}
	}
	r.dead.record(newDeadLetter(target, msg, nil, err))
}

// postStop is protoactor's Stop of a PID of another process or a name.
func (r *router) postStop(pid *actor.PID) {
	r.locate(pid, func(target *actor.PID, err error) {
		switch {
		case err != nil: // there is no such actor: it has stopped
		case r.isLocal(target):
			r.local.stop(target.Id, wire.StopNormal, r.address)
		default:
			_ = r.peers.postTo(target, wire.KindStop, func(b []byte) []byte {
				return binary.AppendUvarint(wire.AppendString(append(b, wire.StopNormal), r.address), 0)
			})
		}
	})
}

// undeliverable makes a dead letter of a message: it counts it, closes its handles, and tells the
// sender. An ask fails with err; an actor gets protoactor's DeadLetterResponse, as it would for an
// actor in its own process. If the message is the answer to an ask, the ask fails.
func (r *router) undeliverable(target *actor.PID, msg any, sender *actor.PID, err error) {
	if target != nil && target.Id == askID { // see lastTarget
		target = askPID(target.Address, target.RequestId)
	}
	r.dead.record(newDeadLetter(target, msg, sender, err))
	r.closeHandles(msg)
	if target != nil && target.Id == askID {
		r.failAsk(target, err) // an answer that cannot reach the asker
	}
	if sender == nil {
		return
	}
	if sender.Id == askID {
		r.failAsk(sender, err)
		return
	}
	switch msg.(type) {
	case *actor.DeadLetterResponse: // no answer to an answer
	default:
		r.notify(sender, &actor.DeadLetterResponse{Target: target})
	}
}
