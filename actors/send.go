package actors

import (
	"context"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
)

// Send sends msg to pid, wherever it lives. It returns when the message is in the actor's mailbox
// or in the queue to its process, and waits under ctx where these are bounded and full. After nil
// the message can still become a dead letter, when the actor or its process ends first; after an
// error it has become one. Messages from one goroutine to one PID arrive in order.
//
// msg is the receiver's afterwards, as are the handles it carries. A span in ctx goes with it; see
// [Context].
func (s *System) Send(ctx context.Context, pid *actor.PID, msg any) error {
	if err := s.router.send(ctx, ctx, pid, msg); err != nil {
		return fmt.Errorf("actors: send to %s: %w", pidString(pid), err)
	}
	return nil
}

// TrySend is Send for who must not wait. [ErrBusy] says that it would have to: then msg is still
// the caller's, and no dead letter. msg has no handles: those would be closed. The end of ctx has
// no effect.
func (s *System) TrySend(ctx context.Context, pid *actor.PID, msg any) error {
	if err := s.router.send(ctx, atOnce, pid, msg); err != nil {
		return fmt.Errorf("actors: send to %s: %w", pidString(pid), err)
	}
	return nil
}

// atOnce is the context of what does not wait.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Poison asks the actor to end after the messages that are queued, and waits for its end under ctx.
// Its reason is Normal. Poison of an actor that does not exist returns nil.
func (s *System) Poison(ctx context.Context, pid *actor.PID) error {
	if err := s.monitors.stop(ctx, pid, wire.StopPoison); err != nil {
		return fmt.Errorf("actors: poison %s: %w", pidString(pid), err)
	}
	return nil
}

// Stop asks the actor to end after the message it is handling, and waits for its end under ctx.
// What was queued becomes dead letters. Its reason is Shutdown. Stop of an actor that does not
// exist returns nil. It never stops a later incarnation, as protoactor's ctx.Stop can, which knows
// only the PID.
//
// When ctx ends first the actor is still stopping; a handler that does not return can not be ended.
// Stop of a process (see [ProcessPID]) asks it to drain and waits for its death to be known.
func (s *System) Stop(ctx context.Context, pid *actor.PID) error {
	if err := s.monitors.stop(ctx, pid, wire.StopShutdown); err != nil {
		return fmt.Errorf("actors: stop %s: %w", pidString(pid), err)
	}
	return nil
}

// Mark has each message that this process sends to another one from now on, answers too, carry a
// header, unless it has one of that key already. It takes the place of the mark before. The errors
// are of a key or a value that is too long: [ErrMalformed].
func (s *System) Mark(key, value string) error {
	if err := checkHeader(map[string]string{key: value}); err != nil {
		return fmt.Errorf("actors: mark: %w", err)
	}
	s.mark.Store(&[2]string{key, value})
	return nil
}
