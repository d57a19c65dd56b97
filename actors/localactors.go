package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/supervisor"
)

// localActors owns the actors of this process: it spawns, finds, watches and stops them.
type localActors struct {
	*localProcess
	proto *protoSystem
	out   surroundings

	// stopProcess is called for a Stop of this process, on behalf of the process from.
	stopProcess func(from string)

	table incarnationTable
	// inherited is what another image of the process has handed over, by the actor's name, until
	// Resume. Guarded by spawning; the messages are those of the actor that gets the name.
	inherited map[string]*actorState
	message   func(*frameState) (any, error) // decodes one of them
	spawning  sync.RWMutex                   // held for reading while an actor is registered, for writing to refuse more
}

func newLocalActors(proc *localProcess, proto *protoSystem, out surroundings, stopProcess func(from string)) *localActors {
	la := &localActors{localProcess: proc, proto: proto, out: out, stopProcess: stopProcess}
	return la
}

// find returns the live actor with an id that this package spawned; nil: there is none.
func (la *localActors) find(id string) *incarnation { return la.table.find(id) }

// exists reports whether there is a live actor with an id, spawned by this package or by
// protoactor.
func (la *localActors) exists(id string) bool {
	if la.find(id) != nil {
		return true
	}
	_, ok := la.proto.foreignActor(id)
	return ok
}

// spawn starts an actor. It adds to failures, if that is not nil, when the actor fails.
func (la *localActors) spawn(ctx context.Context, spec Spec, failures *atomic.Uint64) (*incarnation, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	inc, err := la.register(spec, failures)
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
	if inc.hasStarted() {
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
func (la *localActors) register(spec Spec, failures *atomic.Uint64) (*incarnation, error) {
	la.spawning.RLock()
	defer la.spawning.RUnlock()
	if la.closed.Load() {
		return nil, ErrClosed
	}
	sys := la.proto.system()
	if spec.Name == "" {
		spec.Name = sys.ProcessRegistry.NextId()
	}
	inc := newIncarnation(la.localProcess, la.proto, &la.table, la.out, spec)
	inc.failures = failures
	from := la.inherited[spec.Name]
	if from != nil {
		la.inherit(inc, from)
	}
	_, err := sys.Root.SpawnNamed(la.props(inc), spec.Name)
	if errors.Is(err, actor.ErrNameExists) {
		return nil, ErrNameTaken // the PID that comes with it is the other actor's
	}
	if from != nil && err == nil {
		from.Messages = nil // it has them
	}
	return inc, err
}

// props returns protoactor's Props of an incarnation. Each has its own: Props are mutable and
// shared.
func (la *localActors) props(inc *incarnation) *actor.Props {
	opts := []actor.PropsOption{
		actor.WithMailbox(func() actor.Mailbox { return inc.box }),
		actor.WithSpawnMiddleware(la.wrapChildren),
	}
	if inc.box.bound > 0 && inc.box.overflow == Wait {
		opts = append(opts, actor.WithSenderMiddleware(sendToSelf(inc)))
	}
	return actor.PropsFromProducer(func() actor.Actor { return inc.wrapper }, opts...)
}

// sendToSelf lets the messages that a bounded actor sends to itself in above its bound: otherwise
// it would wait for itself.
func sendToSelf(inc *incarnation) actor.SenderMiddleware {
	return func(next actor.SenderFunc) actor.SenderFunc {
		return func(ctx actor.SenderContext, target *actor.PID, m *actor.MessageEnvelope) {
			if target.Id != inc.id || !inc.proc.isLocal(target) {
				next(ctx, target, m)
				return
			}
			if err := inc.box.post(noContext, m, true); err != nil {
				inc.deadLetter(m, err)
			}
		}
	}
}

// wrapChildren is for actors that their parent spawns with protoactor's ctx.Spawn. A panic in such
// a child's Stopping or Stopped ends there, so that it does not keep the parent from stopping. All
// else is as under protoactor.
func (la *localActors) wrapChildren(next actor.SpawnFunc) actor.SpawnFunc {
	return func(sys *actor.ActorSystem, id string, props *actor.Props, parent actor.SpawnerContext) (*actor.PID, error) {
		props = props.Clone( // the caller's are shared
			actor.WithReceiverMiddleware(la.recoverStopping),
			actor.WithSpawnMiddleware(la.wrapChildren),
		)
		return next(sys, id, props, parent)
	}
}

// recoverStopping recovers from a panic in Stopping or Stopped, and logs it.
func (la *localActors) recoverStopping(next actor.ReceiverFunc) actor.ReceiverFunc {
	return func(ctx actor.ReceiverContext, m *actor.MessageEnvelope) {
		switch m.Message.(type) {
		case *actor.Stopping, *actor.Stopped:
			defer func() {
				if v := recover(); v != nil {
					la.log.Warn("child of an actor failed while stopping",
						slog.String("child", pidString(ctx.Self())), slog.Any("reason", v))
				}
			}()
		}
		next(ctx, m)
	}
}

// stop asks an actor to end, or this process, on behalf of the process from.
func (la *localActors) stop(id string, how byte, from string) {
	if id == processID {
		la.stopProcess(from)
		return
	}
	if inc := la.find(id); inc != nil {
		inc.finish(how)
		return
	}
	if ref, ok := la.proto.foreignActor(id); ok {
		pid := la.proto.ifMade().NewLocalPID(id)
		if how == wire.StopPoison {
			ref.SendUserMessage(pid, &actor.PoisonPill{})
		} else {
			ref.Stop(pid)
		}
	}
}

// watch calls fire once, at the end of an actor, unless unwatch comes before. With a stop other
// than StopNormal it also asks this incarnation to end, on behalf of the process from. It returns
// false when there is no such actor. The process itself never ends for its own actors.
func (la *localActors) watch(id string, k watchKey, stop byte, from string, fire func(supervisor.Reason, endCause)) bool {
	if inc := la.find(id); inc != nil {
		ok := inc.addWatcher(k, func(r supervisor.Reason) { fire(r, endActor) })
		if ok && stop != wire.StopNormal {
			inc.finish(stop)
		}
		return ok
	}
	if id != processID && !la.proto.watcher.watch(id, k, fire) {
		return false
	}
	if stop != wire.StopNormal {
		la.stop(id, stop, from)
	}
	return true
}

// unwatch takes back what watch did.
func (la *localActors) unwatch(id string, k watchKey) {
	if inc := la.find(id); inc != nil {
		inc.removeWatcher(k)
	}
	la.proto.watcher.unwatch(id, k)
}

// infos returns what is counted of the live actors, by id.
func (la *localActors) infos() []ActorInfo {
	var all []*incarnation
	la.table.each(func(inc *incarnation) { all = append(all, inc) })
	slices.SortFunc(all, func(a, b *incarnation) int { return strings.Compare(a.pid.Id, b.pid.Id) })
	list := slices.Grow([]ActorInfo(nil), len(all))
	for _, inc := range all {
		list = append(list, inc.info())
	}
	return list
}

// refuse lets no more actors be spawned. It returns false if it was called before.
func (la *localActors) refuse() bool {
	la.spawning.Lock()
	defer la.spawning.Unlock()
	return !la.closed.Swap(true)
}

// stopAll stops all actors, all at once, and waits for them under ctx. It kills those that have not
// ended then, and returns an error for each.
func (la *localActors) stopAll(ctx context.Context) (errs []error) {
	var all []*incarnation
	la.table.each(func(inc *incarnation) { all = append(all, inc) })
	for _, inc := range all {
		inc.stop(shutdown)
	}
	for _, inc := range all {
		select {
		case <-inc.done:
			continue
		default:
		}
		select {
		case <-inc.done:
		case <-ctx.Done():
			inc.kill(killed)
			errs = append(errs, fmt.Errorf("actor %s: %w", inc.id, context.Cause(ctx)))
		}
	}
	return errs
}
