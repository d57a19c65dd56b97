package actors

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// Down is the notice that a monitored actor or process has ended.
type Down struct {
	PID    *actor.PID        // as it was given to Monitor: a name stays a name
	Reason supervisor.Reason // Error of ErrNoActor when there was no such actor
}

// Monitor watches one incarnation of an actor, or a process, from any process of the tree. Its Down
// comes exactly once, unless Cancel comes before.
type Monitor struct {
	// C delivers the Down of [System.Monitor]. Nil for [System.MonitorFrom].
	C <-chan Down

	c      chan Down // C, to write; 1 entry, written once
	table  *monitors
	ref    uint64
	pid    *actor.PID
	owner  *incarnation         // the actor with which the monitor ends; may be nil
	stop   byte                 // also ask it to end: stopShutdown, stopPoison
	onDown func(Down, endCause) // called with the Down, after the monitor was taken out of the table; nil: c is all

	// Guarded by monitors.mu.
	target     *actor.PID    // what it watches; nil: not known yet
	undo       func()        // undoes what start did; nil: there is nothing to undo
	protoWatch protoWatchKey // the Watch that the monitor stands for; zero: none
}

// Cancel ends the monitor. When it returns, the Down is in C or never will be. A Down that is on
// its way to the actor of a [System.MonitorFrom] at that moment still comes.
func (m *Monitor) Cancel() {
	if undo, ok := m.table.take(m, nil); ok && undo != nil {
		undo()
	}
}

// monitors owns the monitors of this process, which are the watching side. Only the caller that
// takes a monitor out of the table fires it, so each fires once.
type monitors struct {
	*localProcess
	local *localActors
	peers *peers
	// locate calls f with the PID that a notice for pid goes to, now or later.
	locate func(pid *actor.PID, f func(target *actor.PID, err error))

	mu           sync.Mutex
	last         uint64
	open         map[uint64]*Monitor
	protoWatches map[protoWatchKey]*Monitor // protoactor's Watch of a remote actor
}

func newMonitors(proc *localProcess, local *localActors, ps *peers, locate func(*actor.PID, func(*actor.PID, error))) *monitors {
	return &monitors{localProcess: proc, local: local, peers: ps, locate: locate, open: make(map[uint64]*Monitor), protoWatches: make(map[protoWatchKey]*Monitor)}
}

func (t *monitors) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// take removes m and returns how to undo its start; false when it had ended. d is its end; nil: it
// was cancelled.
func (t *monitors) take(m *Monitor, d *Down) (undo func(), ok bool) {
	t.mu.Lock()
	_, ok = t.open[m.ref]
	delete(t.open, m.ref)
	if ok && d != nil && m.c != nil {
		m.c <- *d // has room. Under the lock, so that a Cancel after this finds it in C
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

// setTarget notes what the monitor watches and how to undo that, before the request leaves. It
// returns false if the monitor was cancelled before.
func (t *monitors) setTarget(m *Monitor, target *actor.PID, undo func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m.target, m.undo = target, undo
	return t.open[m.ref] == m
}

// hasEnded reports whether m has ended. A Cancel undoes only what start has done by then; start
// asks here once more, and undoes the rest.
func (t *monitors) hasEnded(m *Monitor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open[m.ref] != m
}

// get returns the monitor with the number ref if it watches the process with an address.
func (t *monitors) get(ref uint64, address string) *Monitor {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.open[ref]; m != nil && m.target != nil && m.target.Address == address {
		return m
	}
	return nil
}

// at reports whether something at a process is watched, or it is.
func (t *monitors) at(address string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.open {
		if m.target != nil && m.target.Address == address {
			return true
		}
	}
	return false
}

// fireAt fires the monitors of the actors of a process, and, when that has ended too, of the
// process itself. It reports whether monitors of the process remain.
func (t *monitors) fireAt(address string, r supervisor.Reason, ended bool) (remain bool) {
	t.mu.Lock()
	var found []*Monitor
	for _, m := range t.open {
		if m.target == nil || m.target.Address != address {
			continue
		}
		if ended || m.target.Id != processID {
			found = append(found, m)
		} else {
			remain = true
		}
	}
	t.mu.Unlock()
	for _, m := range found {
		t.fire(m, r, endingOf(r))
	}
	return remain
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
	found := slices.Collect(maps.Values(t.open))
	t.mu.Unlock()
	for _, m := range found {
		t.fire(m, r, endProcess)
	}
}

func (t *monitors) start(m *Monitor) {
	t.mu.Lock()
	t.last++
	m.ref = t.last
	t.open[m.ref] = m
	t.mu.Unlock()
	if m.owner != nil && !m.owner.addMonitor(m) {
		t.take(m, nil) // the watcher has ended
		return
	}
	if t.closed.Load() {
		t.fire(m, errorReason(ErrClosed), endProcess)
		return
	}
	t.locate(m.pid, func(target *actor.PID, err error) {
		switch {
		case err != nil:
			t.fire(m, endOf(err), endNoActor)
		case t.isLocal(target):
			t.watchLocal(m, target)
		default:
			t.watchRemote(m, target)
		}
	})
}

// endOf is the reason to give for what could not be monitored.
func endOf(err error) supervisor.Reason {
	if down, ok := errors.AsType[*DownError](err); ok {
		return down.Reason
	}
	return errorReason(err)
}

func (t *monitors) watchLocal(m *Monitor, target *actor.PID) {
	k := watchKey{ref: m.ref}
	undo := func() { t.local.unwatch(target.Id, k) }
	if !t.setTarget(m, target, undo) {
		return
	}
	fire := func(r supervisor.Reason, how endCause) { t.fire(m, r, how) }
	if !t.local.watch(target.Id, k, m.stop, t.address, fire) {
		t.fire(m, noActor, endNoActor)
	} else if t.hasEnded(m) {
		undo()
	}
}

// watchRemote asks the process of target to monitor it. The death of a process this one is attached
// to is heard without asking.
func (t *monitors) watchRemote(m *Monitor, target *actor.PID) {
	// Noted before the way is looked for: if the process ends after that, its end finds the
	// monitor.
	if !t.setTarget(m, target, nil) {
		return
	}
	p, err := t.peers.route(target.Address)
	if err == nil {
		err = checkPIDs(target)
	}
	if err != nil {
		how := endNoActor
		if errors.Is(err, ErrDown) {
			how = endProcess
		}
		t.fire(m, endOf(err), how)
		return
	}
	attached := target.Id == processID
	undo := func() { t.demonitor(target, m.ref) }
	if !attached && !t.setTarget(m, target, undo) {
		return
	}
	switch {
	case m.stop != wire.StopNormal:
		f := t.frame(wire.KindStop, fdipc.Control)
		if m.stop == wire.StopPoison {
			f.Lane = fdipc.Data
		}
		p.post(f, func(b []byte) []byte { return t.appendWatcher(append(wire.AppendPID(b, target), m.stop), m.ref) })
	case !attached:
		p.post(t.frame(wire.KindMonitor, fdipc.Data), func(b []byte) []byte { return t.appendWatcher(wire.AppendPID(b, target), m.ref) })
	}
	if !attached && t.hasEnded(m) { // its undo may have gone before
		undo()
	}
	for p.isClosed() && p.rested.Load() { // what was posted goes by the next lane
		if p, err = t.peers.route(target.Address); err != nil {
			t.fire(m, endOf(err), endProcess)
			return
		}
	}
	if p.isClosed() { // in between: its monitors have been fired, perhaps without this one
		r, ended := t.peers.endedFor(p.address)
		if !ended { // a lane that was dropped, see dropLane
			r = p.reasonOfClose()
		}
		if ended || !attached || isNoActor(r) {
			t.fire(m, r, endingOf(r))
		}
	}
}

// demonitor tells the process of target that the monitor ref of this one has ended.
func (t *monitors) demonitor(target *actor.PID, ref uint64) {
	_ = t.peers.postTo(target, wire.KindDemonitor, func(b []byte) []byte { return t.appendWatcher(b, ref) })
}

func (t *monitors) appendWatcher(b []byte, ref uint64) []byte {
	return binary.AppendUvarint(wire.AppendString(b, t.address), ref)
}

// stop asks the incarnation behind pid to end, and waits for that under ctx.
func (t *monitors) stop(ctx context.Context, pid *actor.PID, how byte) error {
	if pid == nil {
		return ErrNoActor
	}
	c := make(chan Down, 1)
	m := &Monitor{C: c, c: c, table: t, pid: pid, stop: how}
	t.start(m)
	defer m.Cancel()
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
