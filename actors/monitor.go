package actors

import (
	"errors"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/supervisor"
)

// Down says that a monitored actor or process has ended.
type Down struct {
	PID    *actor.PID        // as it was given to Monitor: a name stays a name
	Reason supervisor.Reason // Error of ErrNoActor when there was nobody
}

// Monitor watches one incarnation of an actor, or a process, from any process of
// the tree. Its Down comes exactly once, unless Cancel comes before.
type Monitor struct {
	// C delivers the Down of [System.Monitor]. Nil for [System.MonitorFrom].
	C <-chan Down

	c      chan Down // C, for who fires; 1 entry, written once
	s      *System
	ref    uint64
	pid    *actor.PID
	owner  *incarnation         // the actor with which the monitor ends; may be nil
	stop   byte                 // also ask it to end: stopShutdown, stopPoison
	onDown func(Down, endCause) // called by who took the monitor out of the table; nil: c is all

	// Guarded by monitors.mu.
	address    string        // the process it is at
	ofProcess  bool          // it watches that itself
	undo       func()        // takes back what start did; nil: nothing to take back
	protoWatch protoWatchKey // the Watch that the monitor stands for; zero: none
}

// endCause says how an end became known.
type endCause byte

const (
	endActor   endCause = 0 // the actor ended
	endNoActor endCause = 1 // there was none
	endProcess endCause = 2 // its process ended
)

// Monitor watches pid and delivers its Down on the channel C of the result. It
// does not block. A name is bound to its holder of the moment the request arrives.
//
// To monitor comes in order after what the same goroutine sent to pid before;
// Down comes after all that the actor sent to this process.
func (s *System) Monitor(pid *actor.PID) *Monitor {
	c := make(chan Down, 1)
	m := &Monitor{C: c, c: c, s: s, pid: pid}
	s.monitors.start(m)
	return m
}

// MonitorFrom watches pid for the actor of ctx, which gets a *Down as an ordinary
// message. The monitor ends with the actor. To be called from Receive.
func (s *System) MonitorFrom(ctx actor.Context, pid *actor.PID) *Monitor {
	self := ctx.Self()
	m := &Monitor{s: s, pid: pid, onDown: func(d Down, _ endCause) { s.notify(self, &d) }}
	if s.local(self) {
		m.owner = s.incarnations.find(self.Id)
	}
	s.monitors.start(m)
	return m
}

// Cancel ends the monitor. When it returns, the Down is in C or never will be. To the
// actor of a [System.MonitorFrom] one that is on its way at that moment still comes.
func (m *Monitor) Cancel() {
	if undo, ok := m.s.monitors.take(m, nil); ok && undo != nil {
		undo()
	}
}

// monitors are those of this process, that is its watching side. Who takes one
// out fires it: so each fires once.
type monitors struct {
	mu           sync.Mutex
	last         uint64
	open         map[uint64]*Monitor
	protoWatches map[protoWatchKey]*Monitor // protoactor's Watch of a remote actor
}

// protoWatch is a Watch by an actor of this process.
type protoWatchKey struct{ watcher, address, id string }

func (t *monitors) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// take removes m and returns how to undo its start; false when it had ended. d is its
// end; nil: it was cancelled.
func (t *monitors) take(m *Monitor, d *Down) (undo func(), ok bool) {
	t.mu.Lock()
	_, ok = t.open[m.ref]
	delete(t.open, m.ref)
	if ok && d != nil && m.c != nil {
		m.c <- *d // has room. Under the lock: who cancels after this finds it
	}
	if t.protoWatches[m.protoWatch] == m {
		delete(t.protoWatches, m.protoWatch)
	}
	undo = m.undo
	t.mu.Unlock()
	if ok && m.owner != nil {
		m.owner.removeMonitor(m)
	}
	return undo, ok
}

func (t *monitors) fire(m *Monitor, r supervisor.Reason, how endCause) {
	d := Down{PID: m.pid, Reason: r}
	if _, ok := t.take(m, &d); ok && m.onDown != nil {
		m.onDown(d, how)
	}
}

// setTarget notes where the monitor is and how to undo it, before the request
// leaves. It returns false when the monitor was cancelled meanwhile.
func (t *monitors) setTarget(m *Monitor, target *actor.PID, undo func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.address, m.ofProcess, m.undo = target.Address, target.Id == processID, undo
	return t.open[m.ref] == m
}

// hasEnded reports whether m has ended. Who cancels undoes only what is done by then, so whoever
// goes on asks once more, and undoes the rest.
func (t *monitors) hasEnded(m *Monitor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[m.ref] != m
}

// get returns the monitor ref if it is at the process with an address.
func (t *monitors) get(ref uint64, address string) *Monitor {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.open[ref]; m != nil && m.address == address {
		return m
	}
	return nil
}

// fireAt fires the monitors of the actors of a process, and, when that has
// ended too, of the process itself.
func (t *monitors) fireAt(address string, r supervisor.Reason, ended bool) {
	t.mu.Lock()
	var found []*Monitor
	for _, m := range t.open {
		if m.address == address && (ended || !m.ofProcess) {
			found = append(found, m)
		}
	}
	t.mu.Unlock()
	for _, m := range found {
		t.fire(m, r, endingOf(r))
	}
}

// endingOf says how what was at a process has ended, which ended for a reason.
func endingOf(r supervisor.Reason) endCause {
	if isNoActor(r) {
		return endNoActor
	}
	return endProcess
}

func (t *monitors) fireAll(r supervisor.Reason) {
	t.mu.Lock()
	found := make([]*Monitor, 0, len(t.open))
	for _, m := range t.open {
		found = append(found, m)
	}
	t.mu.Unlock()
	for _, m := range found {
		t.fire(m, r, endProcess)
	}
}

func (t *monitors) start(m *Monitor) {
	s := m.s
	t.mu.Lock()
	t.last++
	m.ref = t.last
	t.open[m.ref] = m
	t.mu.Unlock()
	if m.owner != nil && !m.owner.addMonitor(m) {
		t.take(m, nil) // the watcher has ended
		return
	}
	if s.closed.Load() {
		t.fire(m, errorReason(ErrClosed), endProcess)
		return
	}
	s.locate(m.pid, func(target *actor.PID, err error) {
		switch {
		case err != nil:
			t.fire(m, endOf(err), endNoActor)
		case s.local(target):
			s.monitorLocal(m, target)
		default:
			s.monitorRemote(m, target)
		}
	})
}

// endOf is the reason to give for what could not be monitored.
func endOf(err error) supervisor.Reason {
	var down *DownError
	if errors.As(err, &down) {
		return down.Reason
	}
	return errorReason(err)
}

func (s *System) monitorLocal(m *Monitor, target *actor.PID) {
	t := &s.monitors
	k := watchKey{ref: m.ref}
	undo := func() { s.unwatchLocal(target.Id, k) }
	if !t.setTarget(m, target, undo) {
		return
	}
	fire := func(r supervisor.Reason, how endCause) { t.fire(m, r, how) }
	if !s.watchLocal(target.Id, k, m.stop, s.cfg.Address, fire) {
		t.fire(m, noActor, endNoActor)
	} else if t.hasEnded(m) {
		undo()
	}
}

// watchLocal calls fire once, at the end of an actor of this process, unless
// unwatchLocal comes before. With a stop other than stopNormal it also asks this
// incarnation to end, for the process from. It returns false when there is no such
// actor. The process itself never ends for its own actors.
func (s *System) watchLocal(id string, k watchKey, stop byte, from string, fire func(supervisor.Reason, endCause)) bool {
	if inc := s.incarnations.find(id); inc != nil {
		ok := inc.addWatcher(k, func(r supervisor.Reason) { fire(r, endActor) })
		if ok && stop != wire.StopNormal {
			inc.finish(stop)
		}
		return ok
	}
	if id != processID && !s.foreignWatcher.watch(id, k, fire) {
		return false
	}
	if stop != wire.StopNormal {
		s.stopLocal(id, stop, from)
	}
	return true
}

func (s *System) unwatchLocal(id string, k watchKey) {
	if inc := s.incarnations.find(id); inc != nil {
		inc.removeWatcher(k)
	}
	s.foreignWatcher.unwatch(id, k)
}

// protoWatch is protoactor's Watch for an actor of another process: a monitor whose
// Down becomes a Terminated.
func (s *System) watch(watcher, pid *actor.PID) {
	if !s.local(watcher) {
		return
	}
	k := protoWatchKey{watcher.Id, pid.Address, pid.Id}
	who := &actor.PID{Address: pid.Address, Id: pid.Id, RequestId: pid.RequestId}
	m := &Monitor{s: s, pid: who, protoWatch: k}
	m.onDown = func(_ Down, how endCause) {
		why := actor.TerminatedReason_Stopped
		switch {
		case how == endNoActor:
			why = actor.TerminatedReason_NotFound
		case how == endProcess:
			why = actor.TerminatedReason_AddressTerminated
		}
		s.terminated(watcher, who, why)
	}
	m.owner = s.incarnations.find(watcher.Id)
	if s.monitors.addWatch(m) {
		s.monitors.start(m)
	}
}

func (s *System) unwatch(watcher, pid *actor.PID) {
	if m := s.monitors.watched(protoWatchKey{watcher.Id, pid.Address, pid.Id}); m != nil {
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
	if t.protoWatches == nil {
		t.protoWatches = make(map[protoWatchKey]*Monitor)
	}
	t.protoWatches[m.protoWatch] = m
	return true
}

func (t *monitors) watched(k protoWatchKey) *Monitor {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.protoWatches[k]
}

// terminated tells a watcher of this process, as protoactor does.
func (s *System) terminated(watcher, who *actor.PID, why actor.TerminatedReason) {
	if sys := s.protoIfMade(); sys != nil && s.local(watcher) {
		if ref, ok := sys.ProcessRegistry.GetLocal(watcher.Id); ok {
			ref.SendSystemMessage(watcher, &actor.Terminated{Who: who, Why: why})
		}
	}
}

// foreignWatcher watches actors of this process that were spawned by protoactor's
// functions. It is the watcher that protoactor knows of.
type foreignWatcher struct {
	s       *System
	pid     *actor.PID
	mu      sync.Mutex
	watched map[string]map[watchKey]func(supervisor.Reason, endCause) // by the watched actor's id
}

var _ actor.Process = (*foreignWatcher)(nil)

func (w *foreignWatcher) init(s *System) {
	w.s, w.pid = s, actor.NewPID(s.cfg.Address, foreignWatcherID)
	w.watched = make(map[string]map[watchKey]func(supervisor.Reason, endCause))
}

func (w *foreignWatcher) watch(id string, k watchKey, fire func(supervisor.Reason, endCause)) bool {
	ref, ok := w.s.foreignActor(id)
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
		ref.SendSystemMessage(w.s.protoIfMade().NewLocalPID(id), &actor.Watch{Watcher: w.pid})
	}
	return true
}

func (w *foreignWatcher) unwatch(id string, k watchKey) {
	w.mu.Lock()
	delete(w.watched[id], k) // the set stays: protoactor's watch does too
	w.mu.Unlock()
}

// SendSystemMessage hears Terminated. The reason is not known: protoactor has none.
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
