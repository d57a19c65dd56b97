package actors

import (
	"context"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/supervisor"
)

// Child makes an actor a child of a supervisor. It is short for [ChildSpec] with Name and New.
func Child(s *System, name string, producer func() actor.Actor) supervisor.Starter {
	return ChildSpec(s, Spec{Name: name, New: producer})
}

// ChildSpec makes the actor of spec a child of a supervisor. Each start is a new incarnation, with
// the same PID if it has a name.
//
//   - It is up when it has handled Started; a failure there is the error of the start.
//   - A stop lets it finish the message it is handling: its reason is Shutdown.
//   - A kill ends it for the world at once. A handler that is running can not be
//     ended: it is leaked, which the supervisor shows, until it returns.
//   - Its reason is that of [System.Monitor].
func ChildSpec(s *System, spec Spec) supervisor.Starter {
	failures := new(atomic.Uint64)
	return supervisor.StarterFunc(func(ctx context.Context, _ supervisor.Incarnation) (supervisor.Instance, error) {
		inc, err := s.local.spawn(ctx, spec, failures)
		if err != nil {
			return nil, err
		}
		return actorInstance{c: inc}, nil
	})
}

// Actors returns what is counted of the live actors that this package spawned, by id.
func (s *System) Actors() []ActorInfo { return s.local.infos() }

// actorInstance is an incarnation of an actor under a supervisor.
type actorInstance struct {
	supervisor.Base
	c *incarnation
}

func (i actorInstance) Done() <-chan struct{}     { return i.c.done }
func (i actorInstance) Reason() supervisor.Reason { return i.c.exitReason() }
func (i actorInstance) Stop()                     { i.c.stop(shutdown) }
func (i actorInstance) Kill()                     { i.c.kill(killed) }

// Leaked returns nil, or a channel that is closed when the handler that went on after Kill has
// returned.
func (i actorInstance) Leaked() <-chan struct{} {
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	return i.c.leaked
}

// Info returns an [ActorView].
func (i actorInstance) Info() any { return ActorView{i.c} }

// ActorView is an incarnation of an actor as it stands in the snapshot of its supervisor. The
// snapshot never changes; the figures are those of the moment in which they are asked for.
type ActorView struct{ c *incarnation }

// Now returns the figures.
func (v ActorView) Now() ActorInfo { return v.c.info() }

// String is the actor's PID.
func (v ActorView) String() string { return pidString(v.c.pid) }
