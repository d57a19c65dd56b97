package actors

import (
	"context"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/supervisor"
)

// Child makes an actor a child of a supervisor. It is short for [ChildSpec] with
// Name and New.
func Child(s *System, name string, producer func() actor.Actor) supervisor.Starter {
	return ChildSpec(s, Spec{Name: name, New: producer})
}

// ChildSpec makes the actor of spec a child of a supervisor. Each start is a new
// incarnation, with the same PID if it has a name.
//
//   - It is up when it has handled Started; a failure there is the error of the start.
//   - A stop lets it finish the message it is handling: its reason is Shutdown.
//   - A kill ends it for the world at once. A handler that is running can not be
//     ended: it is leaked, which the supervisor shows, until it returns.
//   - Its reason is that of [System.Monitor].
func ChildSpec(s *System, spec Spec) supervisor.Starter {
	return supervisor.StarterFunc(func(ctx context.Context, _ supervisor.Incarnation) (supervisor.Instance, error) {
		c, err := s.spawn(ctx, spec)
		if err != nil {
			return nil, err
		}
		return instance{c}, nil
	})
}

// ActorInfo is what the tree shows of an actor.
type ActorInfo struct {
	PID       string // address/id
	Queue     int    // user messages that wait
	Processed uint64 // user messages taken from the queue
}

// instance is an incarnation of an actor under a supervisor.
type instance struct{ c *cell }

func (i instance) Done() <-chan struct{}     { return i.c.done }
func (i instance) Reason() supervisor.Reason { return i.c.exitReason() }
func (i instance) Stop()                     { i.c.stop(shutdown) }
func (i instance) Kill()                     { i.c.kill(killed) }

// Leaked returns nil, or a channel that is closed when the handler that went on
// after Kill has returned.
func (i instance) Leaked() <-chan struct{} {
	i.c.mu.Lock()
	defer i.c.mu.Unlock()
	return i.c.leaked
}

func (i instance) Info() any {
	f := i.c.box.figures()
	return ActorInfo{PID: pidString(i.c.pid), Queue: f.queue, Processed: f.processed}
}
