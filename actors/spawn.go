package actors

import (
	"context"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
)

// Spawn starts an actor and returns its PID when it has handled Started. It is short for
// [System.SpawnSpec] with Name and New.
func (s *System) Spawn(ctx context.Context, name string, producer func() actor.Actor) (*actor.PID, error) {
	return s.SpawnSpec(ctx, Spec{Name: name, New: producer})
}

// SpawnSpec starts the actor of spec and returns its PID when it has handled Started. When New or
// Started fails, it returns the reason (see [Exit]) after the actor has ended; when ctx ends first,
// the actor is killed. The name is free again in both cases. A name that is taken is
// [ErrNameTaken], and New is not called.
//
// The actor has no parent and no supervisor: it lives until it is stopped or fails, and is not
// restarted. [Child] puts it under one.
func (s *System) SpawnSpec(ctx context.Context, spec Spec) (*actor.PID, error) {
	inc, err := s.local.spawn(ctx, spec, nil)
	if err != nil {
		return nil, fmt.Errorf("actors: spawn %q: %w", spec.Name, err)
	}
	return inc.pid, nil
}
