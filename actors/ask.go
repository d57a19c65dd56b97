package actors

import (
	"context"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
)

// Ask sends msg to pid and returns its answer, which the actor gives with
// ctx.Respond. ctx bounds the wait and nothing else; without a deadline it can
// be for ever, if an actor lives and does not answer.
//
// It fails before that when there is nobody to answer: with [ErrNoActor] when
// the actor does not exist, with a [DownError] when it or its process ends, also
// after it has taken the message, with [ErrType] or [ErrMalformed] when
// the message or the answer can not cross, with [ErrFull] or [ErrBusy] at a bound.
// An actor that passed the message on (ctx.Forward) within its process fails the ask by
// ending as the one that has it then does; one that passed a question of another process
// on to a third fails it no more, nor does the end of who has it then.
//
// An actor that asks itself waits for itself, until ctx ends.
func (s *System) Ask(ctx context.Context, pid *actor.PID, msg any) (any, error) {
	v, err := s.router.ask(ctx, pid, msg)
	if err != nil {
		return nil, fmt.Errorf("actors: ask %s: %w", pidString(pid), err)
	}
	return v, nil
}

// AskedAt returns whom the asks of this process wait for, of those that are at the
// process with that address: what it was asked when it died, before Detach.
func (s *System) AskedAt(address string) []*actor.PID { return s.asks.askedAt(address) }
