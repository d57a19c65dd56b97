package actors

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
)

var errNil = fmt.Errorf("%w: message is nil", ErrMalformed)

// Send sends msg to pid, wherever it lives. It returns when the message is in
// the actor's mailbox or in the queue to its process, and waits under ctx where
// these are bounded and full. After nil the message can still become a dead letter,
// when the actor or its process ends first; after an error it has become one.
// Messages from one goroutine to one PID arrive in order.
//
// msg is the receiver's afterwards, as are the handles it carries. A span in ctx
// goes with it; see [Context].
func (s *System) Send(ctx context.Context, pid *actor.PID, msg any) error {
	if err := s.send(ctx, pid, msg); err != nil {
		return fmt.Errorf("actors: send to %s: %w", pidString(pid), err)
	}
	return nil
}

func (s *System) send(ctx context.Context, pid *actor.PID, msg any) error {
	if msg == nil {
		return errNil
	}
	if s.closed.Load() {
		s.undeliverable(pid, msg, nil, ErrClosed)
		return ErrClosed
	}
	var m any = msg
	if h := traceHeader(ctx); h != nil {
		m = &actor.MessageEnvelope{Header: h, Message: msg}
	}
	err := s.deliver(ctx, pid, m)
	if err != nil {
		s.undeliverable(pid, msg, nil, err)
	}
	return err
}

// Poison asks the actor to end after the messages that are queued, and waits for
// its end under ctx. Its reason is Normal. Poison of an actor that does not exist returns nil.
func (s *System) Poison(ctx context.Context, pid *actor.PID) error {
	if err := s.finish(ctx, pid, wire.StopPoison); err != nil {
		return fmt.Errorf("actors: poison %s: %w", pidString(pid), err)
	}
	return nil
}

// Stop asks the actor to end after the message it is handling, and waits for its
// end under ctx. What was queued becomes dead letters. Its reason is Shutdown. Stop of an actor
// that does not exist returns nil. It never stops a later incarnation, as
// protoactor's ctx.Stop can, which knows only the PID.
//
// When ctx ends first the actor is still stopping; a handler that does not
// return can not be ended. Stop of a process (see [ProcessPID]) asks it to drain and waits for
// its death to be known.
func (s *System) Stop(ctx context.Context, pid *actor.PID) error {
	if err := s.finish(ctx, pid, wire.StopShutdown); err != nil {
		return fmt.Errorf("actors: stop %s: %w", pidString(pid), err)
	}
	return nil
}

// finish asks one incarnation of an actor to end, and waits for that.
func (s *System) finish(ctx context.Context, pid *actor.PID, how byte) error {
	if pid == nil {
		return ErrNoActor
	}
	c := make(chan Down, 1)
	m := &Monitor{C: c, c: c, s: s, pid: pid, stop: how}
	s.monitors.start(m)
	defer m.Cancel()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// postStop is protoactor's Stop of a PID of another process or a name.
func (s *System) postStop(pid *actor.PID) {
	s.locate(pid, func(target *actor.PID, err error) {
		switch {
		case err != nil: // stopped already, as far as anybody can tell
		case s.local(target):
			s.stopLocal(target.Id, wire.StopNormal, s.cfg.Address)
		default:
			_ = s.postTo(target, wire.KindStop, func(b []byte) []byte {
				return binary.AppendUvarint(wire.AppendString(append(b, wire.StopNormal), s.cfg.Address), 0)
			})
		}
	})
}

// stopLocal asks an actor of this process to end, or the process, for the process from.
func (s *System) stopLocal(id string, how byte, from string) {
	if id == processID {
		s.stopOnce.Do(func() {
			if s.cfg.Hooks.Stop != nil {
				// Ends when the hook returns; the process ends after it.
				go s.recoverHook("Stop hook", func() { s.cfg.Hooks.Stop(from) })
			}
		})
		return
	}
	if inc := s.incarnations.find(id); inc != nil {
		inc.finish(how)
		return
	}
	if ref, ok := s.foreignActor(id); ok {
		pid := s.protoIfMade().NewLocalPID(id)
		if how == wire.StopPoison {
			ref.SendUserMessage(pid, &actor.PoisonPill{})
		} else {
			ref.Stop(pid)
		}
	}
}

// foreignActor finds an actor of this process that this package did not spawn: one
// spawned by protoactor's functions.
func (s *System) foreignActor(id string) (*actor.ActorProcess, bool) {
	sys := s.protoIfMade()
	if sys == nil {
		return nil, false
	}
	ref, _ := sys.ProcessRegistry.GetLocal(id)
	p, ok := ref.(*actor.ActorProcess)
	return p, ok
}

// deliver takes a message, bare or in its envelope, to pid. When it returns an
// error the message is the caller's to make a dead letter of. Under noContext it waits for at most SendWait.
func (s *System) deliver(ctx context.Context, pid *actor.PID, message any) error {
	if pid == nil {
		return ErrNoActor
	}
	if s.local(pid) {
		return s.deliverLocal(ctx, pid, message)
	}
	if pid.Address == nameAddress {
		target, err := s.names.resolve(ctx, pid.Id)
		if err != nil {
			return err
		}
		if s.local(target) {
			return s.deliverLocal(ctx, target, message)
		}
		pid = target
	}
	return s.sendRemote(ctx, pid, message)
}

// locate calls f with who a notice for pid goes to: a PID with an address. It
// does not wait: where the master must be asked for a name, f is called when it has
// answered, before anything that is sent to the name meanwhile.
func (s *System) locate(pid *actor.PID, f func(target *actor.PID, err error)) {
	switch {
	case pid == nil:
		f(nil, ErrNoActor)
	case pid.Address == nameAddress:
		s.names.locate(pid.Id, f)
	default:
		f(pid, nil)
	}
}

func (s *System) deliverLocal(ctx context.Context, target *actor.PID, message any) error {
	if inc := s.incarnations.find(target.Id); inc != nil {
		return inc.box.post(ctx, message, false)
	}
	if target.Id == askID {
		s.answer(target, message)
		return nil
	}
	sys := s.protoIfMade()
	if sys == nil || target.Id == processID {
		return ErrNoActor
	}
	ref, ok := sys.ProcessRegistry.GetLocal(target.Id)
	if !ok {
		return ErrNoActor
	}
	ref.SendUserMessage(target, message)
	return nil
}

// notify sends without waiting and without an error: for answers and notices.
func (s *System) notify(pid *actor.PID, msg any) {
	s.locate(pid, func(target *actor.PID, err error) {
		switch {
		case err != nil: // it was a notice of an end to what has ended
		case !s.local(target):
			s.postMessage(target, msg)
		default:
			if inc := s.incarnations.find(target.Id); inc != nil {
				if inc.box.post(noContext, msg, true) == nil {
					return
				}
			} else if s.deliverLocal(noContext, target, msg) == nil {
				return
			}
			s.record(newDeadLetter(target, msg, nil, ErrNoActor))
		}
	})
}
