package actors

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/supervisor"
)

// protoSystem owns protoactor's actor system of this process, which it makes when it is needed
// first.
type protoSystem struct {
	proc  *localProcess
	setUp func(*actor.ActorSystem) // registers this package's processes, before the first Spawn

	firstID uint64 // after which the numbers of actors without a name begin; set before system

	once    sync.Once
	made    atomic.Pointer[actor.ActorSystem]
	watcher foreignWatcher
}

func newProtoSystem(proc *localProcess) *protoSystem {
	ps := &protoSystem{proc: proc}
	ps.watcher.proto, ps.watcher.pid = ps, actor.NewPID(proc.address, foreignWatcherID)
	ps.watcher.watched = make(map[string]map[watchKey]func(supervisor.Reason, endCause))
	return ps
}

// system returns protoactor's system and makes it if it does not exist.
func (ps *protoSystem) system() *actor.ActorSystem {
	ps.once.Do(func() {
		sys := actor.NewActorSystem(
			// Protoactor's own logger prints dead letters with their contents.
			actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
				return slog.New(warnHandler{ps.proc.log.Handler()}).With(slog.String("lib", "protoactor"))
			}),
			actor.WithDeadLetterThrottleCount(0),
			actor.WithDeadLetterThrottleInterval(time.Nanosecond),
		)
		// Before the first Spawn: a PID copies the address.
		sys.ProcessRegistry.Address = ps.proc.address
		sys.ProcessRegistry.SequenceID = max(sys.ProcessRegistry.SequenceID, ps.firstID)
		sys.ProcessRegistry.Add(&ps.watcher, foreignWatcherID)
		ps.setUp(sys)
		ps.made.Store(sys)
	})
	return ps.made.Load()
}

// ifMade returns protoactor's system, or nil if it does not exist.
func (ps *protoSystem) ifMade() *actor.ActorSystem { return ps.made.Load() }

// process returns the entry with an id in protoactor's registry.
func (ps *protoSystem) process(id string) (actor.Process, bool) {
	if sys := ps.ifMade(); sys != nil {
		return sys.ProcessRegistry.GetLocal(id)
	}
	return nil, false
}

// foreignActor returns an actor of this process that protoactor's functions spawned, and not this
// package.
func (ps *protoSystem) foreignActor(id string) (*actor.ActorProcess, bool) {
	ref, _ := ps.process(id)
	p, ok := ref.(*actor.ActorProcess)
	return p, ok
}

// terminated sends Terminated to a watcher of this process, as protoactor does.
func (ps *protoSystem) terminated(watcher, who *actor.PID, why actor.TerminatedReason) {
	if !ps.proc.isLocal(watcher) {
		return
	}
	if ref, ok := ps.process(watcher.Id); ok {
		ref.SendSystemMessage(watcher, &actor.Terminated{Who: who, Why: why})
	}
}

// warnHandler passes on protoactor's records of level Warn and above. Those below are about dead
// letters and panics, which this package reports itself.
type warnHandler struct{ slog.Handler }

func (q warnHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

func (q warnHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return warnHandler{q.Handler.WithAttrs(as)}
}

func (q warnHandler) WithGroup(name string) slog.Handler {
	return warnHandler{q.Handler.WithGroup(name)}
}
