package actors

import (
	"context"
	"fmt"
	"reflect"

	"github.com/asynkron/protoactor-go/actor"
)

// Ask sends msg to pid and returns its answer, which is a T. The wait and the errors are those of
// [System.Ask]; an answer of another type is [ErrAnswerType], in an error that names both types. T
// may be an interface.
//
//	balance, err := actors.Ask[int](ctx, sys, pid, deposit{100})
func Ask[T any](ctx context.Context, s *System, pid *actor.PID, msg any) (T, error) {
	v, err := s.Ask(ctx, pid, msg)
	answer, ok := v.(T)
	if err == nil && !ok {
		s.closeHandles(v)
		err = fmt.Errorf("actors: ask %s: %w: %T, want %s", pidString(pid), ErrAnswerType, v, reflect.TypeFor[T]())
	}
	return answer, err
}

// Ask sends msg to pid and returns its answer, which the actor gives with ctx.Respond. It is for
// answers whose type is not known; the function [Ask] is for those of one type. ctx bounds the wait
// and nothing else; without a deadline it can be for ever, if an actor lives and does not answer.
//
// It fails before that when no actor can answer: with [ErrNoActor] when the actor does not exist,
// with a [DownError] when it or its process ends, also after it has taken the message, with
// [ErrType] or [ErrMalformed] when the message or the answer can not cross, with [ErrFull] or
// [ErrBusy] at a bound. If an actor passed the message on (ctx.Forward) within its process, the ask
// fails when the actor that has it then ends. If an actor passed an ask of another process on to a
// third process, neither its end fails the ask, nor that of the actor that has it then.
//
// An actor that asks itself waits for itself, until ctx ends.
func (s *System) Ask(ctx context.Context, pid *actor.PID, msg any) (any, error) {
	v, err := s.router.ask(ctx, pid, msg)
	if err != nil {
		return nil, fmt.Errorf("actors: ask %s: %w", pidString(pid), err)
	}
	return v, nil
}

// AskedAt returns the targets of the asks of this process that are at the process with an address:
// what it was asked when it died, before Detach.
func (s *System) AskedAt(address string) []*actor.PID { return s.asks.askedAt(address) }
