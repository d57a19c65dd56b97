package actors

import (
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/supervisor"
)

// foreignWatcher watches actors of this process that protoactor's functions spawned. It is the
// watcher that protoactor knows.
type foreignWatcher struct {
	proto   *protoSystem
	pid     *actor.PID
	mu      sync.Mutex
	watched map[string]map[watchKey]func(supervisor.Reason, endCause) // by the watched actor's id
}

func (w *foreignWatcher) watch(id string, k watchKey, fire func(supervisor.Reason, endCause)) bool {
	ref, ok := w.proto.foreignActor(id)
	if !ok {
		return false
	}
	w.mu.Lock()
	set := w.watched[id]
	first := set == nil
	if first {
		set = make(map[watchKey]func(supervisor.Reason, endCause))
		w.watched[id] = set
	}
	set[k] = fire
	w.mu.Unlock()
	if first {
		ref.SendSystemMessage(w.proto.ifMade().NewLocalPID(id), &actor.Watch{Watcher: w.pid})
	}
	return true
}

func (w *foreignWatcher) unwatch(id string, k watchKey) {
	w.mu.Lock()
	delete(w.watched[id], k) // the set stays: protoactor's watch does too
	w.mu.Unlock()
}

// SendSystemMessage takes Terminated. It has no reason: protoactor knows none.
func (w *foreignWatcher) SendSystemMessage(_ *actor.PID, message any) {
	t, ok := message.(*actor.Terminated)
	if !ok || t.Who == nil {
		return
	}
	w.mu.Lock()
	set := w.watched[t.Who.Id]
	delete(w.watched, t.Who.Id)
	w.mu.Unlock()
	for _, fire := range set {
		if t.Why == actor.TerminatedReason_NotFound {
			fire(noActor, endNoActor)
		} else {
			fire(normal, endActor)
		}
	}
}

func (w *foreignWatcher) SendUserMessage(*actor.PID, any) {}
func (w *foreignWatcher) Stop(*actor.PID)                 {}
