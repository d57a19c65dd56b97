package actors

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// A lane to another host on which nothing goes is left by both processes, as a trunk has room for
// so many, and the next message asks for another. Of the two, the one with the lower address leads:
//
//	leader                                   other
//	  | idle, nothing outstanding: laneIdle --> | nothing outstanding: sends no more,
//	  |  <-- laneHeld, on both flows            | and says so behind what it has sent;
//	  |  <-- laneKeep                           | otherwise
//	  | still nothing: sends no more;           |
//	  | laneOver, on both flows -------------> | all has come: laneLeft, and closes the lane
//	  | otherwise: laneKeep -----------------> | goes on
//
// So all that was sent on the lane was handled when it is closed, and what is sent meanwhile goes
// by the next lane, in its order. Something is outstanding if it waits for the end of a process, as
// an ask or a monitor does: the end of the lane is what tells that. The rounds have numbers; an
// answer to a former one does not count.

// Operations of frames on a lane, and of the hint to look at one, which the gateway gives.
const (
	laneIdle byte = 19 // leader: nothing, round
	laneHeld byte = 20 // other: nothing, round
	laneOver byte = 21 // leader: nothing, round
	laneKeep byte = 22 // either: nothing, round
	laneLeft byte = 23 // other: nothing, round; for the gateway
	laneHint byte = 24 // gateway: foreign address, local address; master to a child: foreign address; other: nothing
)

const (
	// defaultLaneIdle is how long nothing goes on a lane to another host before it is left, and how
	// often that is looked at.
	defaultLaneIdle = 5 * time.Minute
	// leftWait bounds the wait for the other side to close a lane that was left.
	leftWait = 10 * time.Second
)

// laneRest is what a lane needs to be left. It is guarded by the peer's mutex where nothing else is
// said.
type laneRest struct {
	again func() (*peer, error) // the next lane's; immutable
	seen  uint64                // frames on the lane when it was looked at last; of the timer

	asked bool          // this side has said laneIdle, and has no answer
	round uint64        // of this side's last laneIdle, or the other's
	flows [2]bool       // on which the answer has come
	until chan struct{} // closed when the round is over; nil: what is sent goes
	held  bool          // this side may leave the lane: it has said laneHeld, or laneOver
	over  chan struct{} // of a lane that was left: closed when nothing more comes
	done  bool          // over is closed, or to be closed when it is made
}

// endLocked notes that nothing more comes.
func (s *laneRest) endLocked() {
	if !s.done && s.over != nil {
		close(s.over)
	}
	s.done = true
}

// leads reports whether this process is the one that has a lane left.
func (p *peer) leads() bool { return p.proc.address < p.address }

// watchIdle looks for lanes that are idle from time to time, while there are any.
func (ps *peers) watchIdle(p *peer) {
	if !p.foreign || !p.leads() {
		return
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.idle == nil && !ps.closed.Load() {
		ps.idle = time.AfterFunc(ps.laneIdle, ps.leaveIdle)
	}
}

// leaveIdle has those lanes left on which nothing went since it looked last.
func (ps *peers) leaveIdle() {
	for _, p := range ps.all() {
		if !p.foreign || !p.leads() || p.pending() {
			continue
		}
		st := p.laneConn.Stats()
		if frames := st.FramesSent + st.FramesReceived; frames != p.rest.seen {
			p.rest.seen = frames
		} else {
			ps.propose(p)
		}
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.byAddress {
		if p.foreign && p.leads() {
			ps.idle.Reset(ps.laneIdle)
			return
		}
	}
	ps.idle = nil
}

// hinted takes the gateway's word that a lane is one of many.
func (ps *peers) hinted(address string) {
	if p := ps.find(address); p == nil || !p.foreign || p.pending() {
		return
	} else if p.leads() {
		ps.propose(p)
	} else {
		p.postLane(laneHint, "", nil)
	}
}

// propose begins a round, if this side has no use for the lane.
func (ps *peers) propose(p *peer) {
	if ps.events.needsLane(p.address) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil && !p.closed && p.rest.until == nil && !p.rest.asked {
		p.rest.round++
		p.rest.flows = [2]bool{}
		p.rest.asked = p.sayLocked(laneIdle, fdipc.Control) // if there is no room, the lane is not idle
	}
}

// onRest takes what the other process says of the lane, on one of its flows.
func (ps *peers) onRest(p *peer, op byte, flow fdipc.Lane, r *wire.Reader) {
	if op == laneHint {
		ps.hinted(p.address)
		return
	}
	round := r.Uint()
	if leads := p.leads(); r.Bad || flow > fdipc.Data || leads && (op == laneIdle || op == laneOver) || !leads && op == laneHeld {
		r.Fail()
		return
	}
	switch op {
	case laneIdle:
		ps.hold(p, round)
	case laneHeld, laneOver:
		p.mu.Lock()
		if p.rest.round != round || (op == laneOver) != p.rest.held {
			p.mu.Unlock()
			return
		}
		p.rest.flows[flow] = true
		both := p.rest.flows == [2]bool{true, true}
		if both {
			p.rest.flows = [2]bool{}
		}
		p.mu.Unlock()
		switch {
		case !both:
		case op == laneHeld:
			ps.decide(p, round)
		default:
			ps.leave(p)
			p.mu.Lock()
			p.rest.endLocked()
			p.sayLocked(laneLeft, fdipc.Control) // if there is no room, the gateway finds out later
			p.mu.Unlock()
			_ = p.laneConn.Close()
		}
	case laneKeep:
		p.mu.Lock()
		if p.rest.round == round && p.leads() {
			p.rest.asked = false
		} else if p.rest.round == round && p.rest.held {
			p.resumeLocked()
		}
		p.mu.Unlock()
	}
}

// hold answers the proposal of a leader: if this side has no use for the lane either, nothing is
// sent from now on, until the leader has decided.
func (ps *peers) hold(p *peer, round uint64) {
	p.mu.Lock()
	paused := p.pauseLocked()
	p.mu.Unlock()
	needed := !paused || ps.events.needsLane(p.address)
	p.mu.Lock()
	held := false
	if paused {
		p.rest.round, p.rest.flows = round, [2]bool{}
		held = !needed && !p.closed && p.sayLocked(laneHeld, fdipc.Control) && p.sayLocked(laneHeld, fdipc.Data)
		if p.rest.held = held; !held {
			p.resumeLocked()
		}
	}
	p.mu.Unlock()
	if !held {
		p.postLane(laneKeep, "", func(b []byte) []byte { return binary.AppendUvarint(b, round) })
	}
}

// decide has the lane left if this side still has no use for it, and otherwise has it go on.
func (ps *peers) decide(p *peer, round uint64) {
	p.mu.Lock()
	p.rest.asked = false
	paused := p.rest.round == round && p.pauseLocked()
	p.mu.Unlock()
	needed := !paused || ps.events.needsLane(p.address)
	p.mu.Lock()
	left := !needed && !p.closed && p.sayLocked(laneOver, fdipc.Control) && p.sayLocked(laneOver, fdipc.Data)
	if p.rest.held = left; !left && paused {
		p.resumeLocked()
	}
	p.mu.Unlock()
	if !left {
		p.postLane(laneKeep, "", func(b []byte) []byte { return binary.AppendUvarint(b, round) })
		return
	}
	ps.leave(p)
	p.mu.Lock()
	p.rest.endLocked()
	p.mu.Unlock()
	time.AfterFunc(leftWait, func() { _ = p.laneConn.Close() })
}

// pauseLocked has what is sent wait from now on. It returns false if that cannot be, as something
// is on its way into the Conn.
func (p *peer) pauseLocked() bool {
	for _, b := range p.backlog {
		if b.flushing != nil || len(b.notices) > 0 {
			return false
		}
	}
	if p.closed || p.conn == nil || p.onHold || p.using > 0 || p.rest.until != nil {
		return false
	}
	p.rest.until = make(chan struct{})
	for i := range p.sendDirect {
		p.sendDirect[i].Store(false)
	}
	return true
}

// resumeLocked undoes pauseLocked.
func (p *peer) resumeLocked() {
	if p.rest.until != nil {
		close(p.rest.until)
		p.rest.until, p.rest.held = nil, false
		p.sendBacklogLocked()
	}
}

// sayLocked sends a frame of a round behind all that was sent on a flow. It returns false if there
// is no room.
func (p *peer) sayLocked(op byte, flow fdipc.Lane) bool {
	f := p.proc.frame(wire.KindLane, flow)
	f.Payload = wire.AppendString(append(wire.AppendPID(nil, ProcessPID(p.address)), op), "")
	f.Payload = binary.AppendUvarint(f.Payload, p.rest.round)
	return p.conn.TrySend(&f) == nil
}

// leave takes out a lane for which neither side had a use. What waits to be sent goes by the next
// one. It returns false if the lane is not one that this side may leave.
func (ps *peers) leave(p *peer) bool {
	ps.mu.Lock()
	p.mu.Lock()
	if !p.rest.held || p.closed || !ps.removeLocked(p) {
		p.mu.Unlock()
		ps.mu.Unlock()
		return false
	}
	p.rest.over = make(chan struct{})
	if p.rest.done {
		close(p.rest.over)
	}
	kept := [2][]fdipc.Frame{slices.Clone(p.backlog[0].notices), slices.Clone(p.backlog[1].notices)}
	p.backlog[0].notices, p.backlog[1].notices = nil, nil
	p.rested.Store(true)
	p.closeLocked(supervisor.Reason{Kind: supervisor.Normal})
	close(p.rest.until)
	if p.number != 0 { // it is not forgotten
		ps.broken[p.address] = p.number
	}
	if p.conn != nil && !p.connEnded {
		ps.left[p] = struct{}{}
	}
	var next *peer
	if len(kept[0])+len(kept[1]) > 0 {
		next = ps.newLaneLocked(p.address)
		next.backlog[0].notices, next.backlog[1].notices = kept[0], kept[1]
	}
	p.mu.Unlock()
	ps.mu.Unlock()
	if next != nil {
		ps.wantLane(next)
	} else if ps.events.needsLane(p.address) { // since a moment ago
		_, _ = ps.route(p.address)
	}
	return true
}
