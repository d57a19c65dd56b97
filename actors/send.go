package actors

import (
	"context"
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
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
	if s.closed.Load() {
		return ErrClosed
	}
	if msg == nil {
		return errNil
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
// its end under ctx. Its reason is Normal.
func (s *System) Poison(ctx context.Context, pid *actor.PID) error {
	return s.finish(ctx, "poison", pid, func() error { return s.send(ctx, pid, &actor.PoisonPill{}) })
}

// Stop asks the actor to end after the message it is handling, and waits for its
// end under ctx. What was queued becomes dead letters. Its reason is Shutdown. Stop of an actor
// that does not exist returns nil.
//
// When ctx ends first the actor is still stopping; a handler that does not
// return can not be ended. Stop of a process (see [ProcessPID]) asks it to drain and waits for
// its death to be known.
func (s *System) Stop(ctx context.Context, pid *actor.PID) error {
	return s.finish(ctx, "stop", pid, func() error { return s.askStop(pid, stopShutdown) })
}

func (s *System) finish(ctx context.Context, op string, pid *actor.PID, ask func() error) error {
	if pid == nil {
		return fmt.Errorf("actors: %s: %w", op, ErrNoActor)
	}
	m := s.Monitor(pid)
	defer m.Cancel()
	err := ask()
	if err == nil {
		select {
		case <-m.C:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if err == nil || errors.Is(err, ErrNoActor) || errors.Is(err, ErrDown) {
		return nil
	}
	return fmt.Errorf("actors: %s %s: %w", op, pidString(pid), err)
}

// askStop asks pid to stop and does not wait.
func (s *System) askStop(pid *actor.PID, how byte) error {
	target, remote := s.holder(pid)
	if target == nil {
		return ErrNoActor
	}
	if remote {
		return s.postTo(target, kindStop, func(b []byte) []byte { return append(b, how) })
	}
	return s.stopLocal(target.Id, how, s.cfg.Address)
}

// stopLocal stops an actor of this process, or the process, for the process from.
func (s *System) stopLocal(id string, how byte, from string) error {
	if id == processID {
		s.stopOnce.Do(func() {
			if s.cfg.Hooks.Stop != nil {
				// Ends when the hook returns; the process ends after it.
				go s.protect("Stop hook", func() { s.cfg.Hooks.Stop(from) })
			}
		})
		return nil
	}
	if c, ok := s.cells.Load(id); ok {
		reason := shutdown
		if how == stopNormal {
			reason = normal
		}
		c.(*cell).stop(reason)
		return nil
	}
	ref, ok := s.foreign(id)
	if !ok {
		return ErrNoActor
	}
	ref.Stop(s.made().NewLocalPID(id))
	return nil
}

// foreign finds an actor of this process that this package did not spawn: one
// spawned by protoactor's functions.
func (s *System) foreign(id string) (*actor.ActorProcess, bool) {
	sys := s.made()
	if sys == nil {
		return nil, false
	}
	ref, _ := sys.ProcessRegistry.GetLocal(id)
	p, ok := ref.(*actor.ActorProcess)
	return p, ok
}

// holder returns who a message for pid goes to, and whether that is another
// process. A name that this process can not resolve stays as it is, for the uplink;
// nil means that nobody has it.
func (s *System) holder(pid *actor.PID) (target *actor.PID, remote bool) {
	switch {
	case pid == nil:
		return nil, false
	case s.local(pid):
		return pid, false
	case pid.Address != nameAddress || s.hasUplink():
		return pid, true
	}
	h := s.names.whereis(pid.Id)
	return h, h != nil && !s.local(h)
}

// deliver takes a message, bare or in its envelope, to pid. When it returns an
// error the message is the caller's to make a dead letter of. A nil ctx waits for at most SendWait.
func (s *System) deliver(ctx context.Context, pid *actor.PID, message any) error {
	target, remote := s.holder(pid)
	switch {
	case target == nil:
		return ErrNoActor
	case remote:
		return s.sendRemote(ctx, target, message)
	}
	return s.deliverLocal(ctx, target, message)
}

func (s *System) deliverLocal(ctx context.Context, target *actor.PID, message any) error {
	if c, ok := s.cells.Load(target.Id); ok {
		return c.(*cell).box.post(ctx, message, false)
	}
	if target.Id == askID {
		s.answer(target, message)
		return nil
	}
	sys := s.made()
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
	target, remote := s.holder(pid)
	switch {
	case target == nil:
	case remote:
		s.postMessage(target, msg)
	default:
		if c, ok := s.cells.Load(target.Id); ok {
			if c.(*cell).box.post(nil, msg, true) == nil {
				return
			}
		} else if s.deliverLocal(nil, target, msg) == nil {
			return
		}
		s.record(newDeadLetter(target, msg, nil, ErrNoActor))
	}
}
