package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// Restore returns the System that goes on where that of another image of this process stopped, from
// the state that its [System.Suspend] returned: see there for the order of calls. cfg has the same
// Address and Incarnation. Until [System.Resume] the System sends nothing to other processes: what
// its actors send waits.
//
// An actor that is spawned before Resume with the name of one that handed over takes over from it.
func Restore(cfg Config, state []byte) (*System, error) {
	st, err := decodeState(state)
	if err == nil {
		err = st.check(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("actors: restore: %w", err)
	}
	s, err := NewSystem(cfg)
	if err != nil {
		return nil, err
	}
	s.proto.firstID, s.monitors.last = st.LastID, st.LastMonitor
	s.asks.calls.Restore(st.LastAsk)
	s.peers.restore(st)
	s.names.restore(st)
	for address, one := range st.Peers {
		for _, ask := range one.Asks {
			s.inbound.beginAsk(&s.peers.find(address).share, ask)
		}
	}
	s.local.inherited, s.local.message, s.restored = st.Actors, s.message, st
	return s, nil
}

func (ps *peers) restore(st *systemState) {
	for _, e := range st.Ended {
		ps.ended.add(e.Address, readReason(&wire.Reader{B: e.Reason}))
	}
	ps.broker.last = st.LastLane
	if ps.foreign != nil && st.Foreign != nil {
		ps.foreign.rules.Restore(st.Foreign, ps.address)
		ps.foreign.gateway = st.Foreign.Gateway
	}
	for address, one := range st.Peers {
		p := newPeer(ps.localProcess, ps.slot(address), address)
		p.incarnation, p.onHold = one.Incarnation, true
		p.talks.Store(true) // for all that is known
		if one.Types != nil {
			p.setTypes(one.Types)
		}
		for other, number := range one.Lanes {
			ps.broker.newest[pairOf(address, other)] = number
		}
		for _, fs := range one.Notices {
			f := ps.frame(fdipc.Kind(fs.Kind), fdipc.Lane(fs.Lane))
			f.Flags, f.Trace, f.Payload = fs.Flags, fs.trace(), fs.Payload
			p.backlog[fs.Lane].notices = append(p.backlog[fs.Lane].notices, f)
		}
		ps.byAddress[address] = p
	}
}

func (n *names) restore(st *systemState) {
	for name, one := range st.Names {
		if one.Monitor == 0 && one.PID.Id != processID {
			continue // an actor of this process: settle sees whether it came over
		}
		reg := &registration{pid: one.PID}
		n.registered[name] = reg
		n.countLocked(one.PID.Address, +1)
		if one.Monitor != 0 {
			reg.mon = n.holderMonitor(name, reg)
			n.monitors.restore(reg.mon, one.Monitor, one.PID)
		}
	}
	for address, one := range st.Peers {
		for _, key := range one.Caches {
			n.changes.remember(address, key)
		}
	}
	n.changes.last = st.LastChange
}

// restore makes m the monitor with a number, of a target in another process.
func (t *monitors) restore(m *Monitor, number uint64, target *actor.PID) {
	m.ref, m.target, m.undo = number, target, func() { t.demonitor(target, number) }
	t.mu.Lock()
	t.open[number] = m
	t.mu.Unlock()
	if m.owner != nil && !m.owner.addMonitor(m) {
		m.Cancel()
	}
}

// inherit gives an actor that was not spawned yet what waited for its predecessor.
func (la *localActors) inherit(inc *incarnation, from *actorState) {
	inc.predecessor = from.Handover
	for i := range from.Messages {
		fs := &from.Messages[i]
		m, err := la.message(fs)
		if err != nil {
			_, msg, sender := actor.UnwrapEnvelope(m)
			la.out.undeliverable(inc.pid, msg, sender, err)
			continue
		}
		if n := len(fs.Payload); n > lightMessage {
			m = &heavyMessage{m, n}
		}
		inc.box.mu.Lock()
		inc.box.onHold = true // until Resume: it may yet not take place
		inc.box.pushLocked(m, false)
	}
}

// Resume lets a System go on that Suspend has stopped, or that [Restore] has made. In the latter it
// is certain then that this image of the process is the one: other processes learn what did not
// come over.
func (s *System) Resume() {
	if st := s.restored; st != nil {
		s.restored = nil
		s.settle(st)
	}
	for _, p := range s.peers.all() {
		p.release()
	}
	if l := s.peers.foreign; l != nil {
		l.step(foreign.Event{Kind: foreign.Resumed})
	}
	s.local.table.each(func(inc *incarnation) { inc.box.release() })
}

// settle ends what waited for something that did not come over, and lets the rest go on.
func (s *System) settle(st *systemState) {
	replaced := errorReason(ErrReplaced)
	s.local.spawning.Lock()
	left := s.local.inherited
	s.local.inherited = nil
	s.local.spawning.Unlock()
	for name, from := range left {
		for i := range from.Messages { // no actor has the name
			m, _ := s.message(&from.Messages[i])
			_, msg, sender := actor.UnwrapEnvelope(m)
			s.router.undeliverable(actor.NewPID(s.address, name), msg, sender, ErrReplaced)
		}
	}
	for _, p := range s.peers.all() {
		if p.pending() {
			s.peers.detach(p, replaced)
		}
	}
	for name, one := range st.Names {
		switch n := s.names; {
		case one.Monitor != 0 || one.PID.Id == processID:
		case s.cameOver(one.PID.Id) != nil:
			n.register(name, one.PID, false, func(error) {})
		default:
			n.tellChanged(name, func() {})
		}
	}
	for number, one := range st.Monitors {
		s.settleMonitor(number, one)
	}
	if st.Foreign != nil { // a change may have come while no image listened
		for host := range st.Foreign.Newest {
			s.names.hostChanged(host, "")
		}
		s.names.clusterChanged("", nil, holdersUnknown) // the gateway tells them anew
	}
	kept := make(map[askKey]bool)
	s.local.table.each(func(inc *incarnation) {
		for _, m := range inc.box.queued() {
			if sender := actor.UnwrapEnvelopeSender(m); sender != nil {
				kept[keyOf(sender)] = true
			}
		}
		inc.mu.Lock()
		defer inc.mu.Unlock()
		for _, ask := range inc.unanswered {
			kept[keyOf(ask)] = true
		}
	})
	for address, one := range st.Peers {
		p := s.peers.find(address)
		if p == nil {
			continue
		}
		for ref, id := range one.Monitors {
			if s.cameOver(id) != nil || id == processID {
				s.frames.serveMonitor(p, actor.NewPID(s.address, id), address, ref, wire.StopNormal)
			} else {
				s.peers.sendDown(address, ref, replaced, endActor)
			}
		}
		for _, ask := range one.Asks {
			if s.inbound.hasAsk(ask) && !kept[keyOf(ask)] {
				s.router.failAsk(ask, ErrReplaced)
			}
		}
		for _, id := range one.Asked {
			s.peers.giveUpAsk(address, &actor.PID{Address: s.address, Id: askID, RequestId: id})
		}
	}
}

// cameOver returns the actor with an id if it has taken over from its predecessor.
func (s *System) cameOver(id string) *incarnation {
	if inc := s.local.find(id); inc != nil {
		inc.mu.Lock()
		defer inc.mu.Unlock()
		if inc.tookOver {
			return inc
		}
	}
	return nil
}

// settleMonitor makes a monitor again, for an owner that came over.
func (s *System) settleMonitor(number uint64, one monitorState) {
	owner, local, foreign := s.cameOver(one.Owner), s.isLocal(one.Target), s.isForeign(one.Target.Address)
	if owner == nil {
		if !local && !foreign {
			s.monitors.demonitor(one.Target, number)
		}
		return
	}
	m := s.monitorOf(owner.pid, one.PID)
	if one.Watch {
		m = s.monitors.watchOf(owner.pid, one.PID)
		if !s.monitors.addWatch(m) {
			return // it has watched anew
		}
	}
	if local && (one.Target.Id == processID || s.cameOver(one.Target.Id) != nil) {
		s.monitors.start(m)
		return
	}
	s.monitors.restore(m, number, one.Target)
	if foreign { // the lane has ended
		s.monitors.fire(m, laneReasons.Suspended, endProcess)
		return
	}
	if r, ended := s.peers.endedFor(one.Target.Address); ended { // it was not attached
		s.monitors.fire(m, r, endProcess)
	} else if local {
		s.monitors.fire(m, errorReason(ErrReplaced), endActor)
	}
}
