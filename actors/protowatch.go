package actors

import "github.com/asynkron/protoactor-go/actor"

// protoWatchKey is a Watch by an actor of this process.
type protoWatchKey struct{ watcher, address, id string }

// protoWatch is protoactor's Watch for an actor of another process: a monitor whose Down becomes a
// Terminated.
func (t *monitors) protoWatch(watcher, pid *actor.PID) {
	if !t.isLocal(watcher) {
		return
	}
	if m := t.watchOf(watcher, pid); t.addWatch(m) {
		t.start(m)
	}
}

// watchOf returns the monitor that a Watch stands for.
func (t *monitors) watchOf(watcher, pid *actor.PID) *Monitor {
	k := protoWatchKey{watcher.Id, pid.Address, pid.Id}
	who := &actor.PID{Address: pid.Address, Id: pid.Id, RequestId: pid.RequestId}
	m := &Monitor{table: t, pid: who, protoWatch: k}
	m.onDown = func(_ Down, how endCause) {
		why := actor.TerminatedReason_Stopped
		switch {
		case how == endNoActor:
			why = actor.TerminatedReason_NotFound
		case how == endProcess:
			why = actor.TerminatedReason_AddressTerminated
		}
		t.local.proto.terminated(watcher, who, why)
	}
	m.owner = t.local.find(watcher.Id)
	return m
}

func (t *monitors) protoUnwatch(watcher, pid *actor.PID) {
	t.mu.Lock()
	m := t.protoWatches[protoWatchKey{watcher.Id, pid.Address, pid.Id}]
	t.mu.Unlock()
	if m != nil {
		m.Cancel()
	}
}

// addWatch returns false when the same actor watches already.
func (t *monitors) addWatch(m *Monitor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.protoWatches[m.protoWatch] != nil {
		return false
	}
	t.protoWatches[m.protoWatch] = m
	return true
}
