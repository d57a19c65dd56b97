package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
)

// DefaultBound is how many user messages may wait in the mailbox of an actor whose [Spec]
// has no Bound before a message from another process finds it full.
const DefaultBound = 1024

// Spec describes an actor. It is plain data but for New.
type Spec struct {
	// Name is the actor's id in its process; see [ErrName]. Empty: a generated one.
	Name string
	// New returns the actor. It is called on the actor's goroutine, before Started,
	// once for each Spawn.
	New func() actor.Actor

	// Bound is how many user messages may wait in the mailbox. Zero means [DefaultBound]
	// for those from other processes and no bound for those of this one; math.MaxInt
	// means no bound.
	//
	// Those from other processes are bounded by their bytes too: the mailbox counts as full for
	// one of more than 16 KiB that would bring such ones to more than 16 MiB together, or to
	// more than 16 KiB times Bound if that is more. One that is longer than that finds room when
	// it is the only one.
	Bound int
	// Overflow is what happens at the bound.
	Overflow Overflow
}

func (spec Spec) validate() error {
	var errs []error
	if spec.Name != "" {
		if err := checkName(spec.Name); err != nil {
			errs = append(errs, fmt.Errorf("Name %q: %w", spec.Name, err))
		}
	}
	if spec.New == nil {
		errs = append(errs, errors.New("New is nil"))
	}
	if spec.Bound < 0 {
		errs = append(errs, fmt.Errorf("Bound %d: negative", spec.Bound))
	}
	if spec.Overflow > Fail {
		errs = append(errs, fmt.Errorf("Overflow %d: unknown", spec.Overflow))
	}
	return errors.Join(errs...)
}

// Spawn starts an actor and returns its PID when it has handled Started. It is
// short for [System.SpawnSpec] with Name and New.
func (s *System) Spawn(ctx context.Context, name string, producer func() actor.Actor) (*actor.PID, error) {
	return s.SpawnSpec(ctx, Spec{Name: name, New: producer})
}

// SpawnSpec starts the actor of spec and returns its PID when it has handled
// Started. When New or Started fails, it returns the reason (see [Exit]) after
// the actor has ended; when ctx ends first, the actor is killed. The name is free again
// in both cases. A name that is taken is [ErrNameTaken], and New is not called.
//
// The actor has no parent and no supervisor: it lives until it is stopped or
// fails, and is not restarted. [Child] puts it under one.
func (s *System) SpawnSpec(ctx context.Context, spec Spec) (*actor.PID, error) {
	inc, err := s.spawn(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("actors: spawn %q: %w", spec.Name, err)
	}
	return inc.pid, nil
}

func (s *System) spawn(ctx context.Context, spec Spec) (*incarnation, error) {
	return s.spawnFor(ctx, spec, nil)
}

// spawnFor spawns and counts in failures, if it is not nil, when the actor fails.
func (s *System) spawnFor(ctx context.Context, spec Spec, failures *atomic.Uint64) (*incarnation, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	inc, err := s.register(spec, failures)
	if err != nil {
		return nil, err
	}
	select {
	case <-inc.startDone:
	case <-inc.done: // killed meanwhile
	case <-ctx.Done():
		inc.kill(killed)
		return nil, context.Cause(ctx)
	}
	inc.mu.Lock()
	started := inc.started
	inc.mu.Unlock()
	if started {
		return inc, nil
	}
	select {
	case <-inc.done:
	case <-ctx.Done():
		inc.kill(killed)
	}
	r := inc.exitReason()
	if err := r.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("actor ended while starting: %s", r)
}

// register makes the actor known; its Started is queued. No user code runs here.
func (s *System) register(spec Spec, failures *atomic.Uint64) (*incarnation, error) {
	s.spawning.RLock()
	defer s.spawning.RUnlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	sys := s.Actor()
	if spec.Name == "" {
		spec.Name = sys.ProcessRegistry.NextId()
	}
	inc := newIncarnation(s, spec)
	inc.failures = failures
	_, err := sys.Root.SpawnNamed(inc.props(), spec.Name)
	if errors.Is(err, actor.ErrNameExists) {
		return nil, ErrNameTaken // the PID that comes with it is the other actor's
	}
	return inc, err
}

// props are made anew for each incarnation: protoactor's are mutable and shared.
func (inc *incarnation) props() *actor.Props {
	opts := []actor.PropsOption{
		actor.WithMailbox(func() actor.Mailbox { return inc.box }),
		actor.WithSpawnMiddleware(inc.s.wrapChildren),
	}
	if inc.box.bound > 0 && inc.box.overflow == Wait {
		opts = append(opts, actor.WithSenderMiddleware(inc.sendToSelf))
	}
	return actor.PropsFromProducer(func() actor.Actor { return inc.wrapper }, opts...)
}

// sendToSelf lets what a bounded actor sends to itself pass its bound: it would
// wait for itself.
func (inc *incarnation) sendToSelf(next actor.SenderFunc) actor.SenderFunc {
	return func(ctx actor.SenderContext, target *actor.PID, m *actor.MessageEnvelope) {
		if target.Id != inc.id || !inc.s.local(target) {
			next(ctx, target, m)
			return
		}
		if err := inc.box.post(noContext, m, true); err != nil {
			inc.deadLetter(m, err)
		}
	}
}

// wrapChildren sees to it that an actor which its parent spawned with
// protoactor's ctx.Spawn can not keep the parent from stopping: a panic in its
// Stopping or Stopped ends there. All else is as under protoactor.
func (s *System) wrapChildren(next actor.SpawnFunc) actor.SpawnFunc {
	return func(sys *actor.ActorSystem, id string, props *actor.Props, parent actor.SpawnerContext) (*actor.PID, error) {
		props = props.Clone( // the caller's are shared
			actor.WithReceiverMiddleware(s.recoverStopping),
			actor.WithSpawnMiddleware(s.wrapChildren),
		)
		return next(sys, id, props, parent)
	}
}

func (s *System) recoverStopping(next actor.ReceiverFunc) actor.ReceiverFunc {
	return func(ctx actor.ReceiverContext, m *actor.MessageEnvelope) {
		switch m.Message.(type) {
		case *actor.Stopping, *actor.Stopped:
			defer func() {
				if v := recover(); v != nil {
					s.log.Warn("child of an actor failed while stopping",
						slog.String("child", pidString(ctx.Self())), slog.Any("reason", v))
				}
			}()
		}
		next(ctx, m)
	}
}
