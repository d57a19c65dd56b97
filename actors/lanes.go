package actors

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"time"

	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// A lane is a channel between two children. The first message to a sibling makes one: the child
// asks the master, which makes a pair of sockets and gives one end to each. No message between two
// children passes through the master, so there is only one way and thus one order; messages that
// are sent before the lane is there wait for it.
//
//	opening --grant--> open --its Conn ends, the master says why--> detached
//	   |                    --its Conn ends, the master is silent for laneGrace--> dropped
//	   +--no such process, or its end--> detached
//
// The master numbers lanes and keeps the newest number of each pair. A child that asks for a lane
// says which number it has lost; if a newer one is on its way to it, the master does not answer. So
// there is at most one lane a pair, whichever child asks first and however often.
//
// A child learns of the end of a sibling twice, in any order: the lane's Conn ends, when all that
// was sent has been handled, and the master says that the process has ended, and why. The second of
// the two detaches the sibling.

// Operations of lane frames.
const (
	laneAsk       byte = 1 // child to master: address, number lost
	laneGrant     byte = 2 // master to child: address, incarnation, number; one handle
	laneNoProcess byte = 3 // master to child: address
	laneFailed    byte = 4 // master to child: address, error
)

const (
	// defaultLaneGrace is how long after the end of a lane the news of its process's end may come,
	// before the lane counts as broken.
	defaultLaneGrace = 2 * time.Second
	// laneReadWait bounds how long the unread messages of a dead sibling delay the news of its end.
	laneReadWait = time.Second
	// maxGrants bounds the ends of lanes, which are descriptors of the master, that wait for a
	// child which does not read. Beyond it a lane is refused.
	maxGrants = 1024
)

// askLane returns a peer that opens when the master has made a lane to it.
func (ps *peers) askLane(address string) (*peer, error) {
	ps.mu.Lock()
	if p := ps.byAddress[address]; p != nil {
		ps.mu.Unlock()
		return p, nil
	}
	for _, a := range []string{address, ps.uplink} {
		if r, ok := ps.ended.find(a); ok {
			ps.mu.Unlock()
			return nil, downError(ProcessPID(a), r)
		}
	}
	up := ps.byAddress[ps.uplink]
	abroad := ps.foreign != nil && ps.isForeign(address) // the master asks itself
	if up == nil && !abroad || checkName(address) != nil || ps.closed.Load() {
		ps.mu.Unlock()
		return nil, ErrNoActor
	}
	p := ps.newLaneLocked(address)
	ps.mu.Unlock()
	ps.wantLane(p)
	return p, nil
}

// wantLane asks the master for the lane of a peer.
func (ps *peers) wantLane(p *peer) {
	ps.mu.Lock()
	lost, up := ps.broken[p.address], ps.byAddress[ps.uplink]
	ps.mu.Unlock()
	switch {
	case up != nil:
		up.postLane(laneAsk, p.address, func(b []byte) []byte { return binary.AppendUvarint(b, lost) })
	case ps.foreign != nil:
		ps.foreign.step(foreign.Event{Kind: foreign.Asked, Pair: foreign.Pair{Local: ps.address, Foreign: p.address}, Number: lost})
	default: // the master has ended
		ps.detach(p, errorReason(fdipc.ErrPeerLost))
	}
}

// newLaneLocked adds a peer that waits for its lane.
func (ps *peers) newLaneLocked(address string) *peer {
	p := newPeer(ps.localProcess, ps.slot(address), address)
	p.lane = true
	p.rest.again = func() (*peer, error) { return ps.route(address) }
	ps.byAddress[address] = p
	return p
}

// onLane serves a child's request, or takes the master's answer.
func (ps *peers) onLane(p *peer, f *fdipc.Frame, r *wire.Reader) {
	op, address := r.Byte(), r.Text(wire.MaxAddress)
	switch master := !ps.hasUplink(); {
	case p.foreign && p.lane && op >= laneIdle && op <= laneHint:
		if ps.onRest(p, op, f.Lane, r); !r.Bad {
			f.Refuse(fdipc.ReasonUnknown)
			return
		}
	case p.lane: // no sibling makes lanes, nor does another host
		r.Fail()
	case master && ps.foreign != nil && ps.foreign.isGateway(p) && ps.foreign.onFrame(op, address, r):
		f.Refuse(fdipc.ReasonUnknown)
		return
	case !master && p.address == ps.uplinkAddress() && ps.onGateway(op, address, f.Handles, r):
		return
	case master != (op == laneAsk) || !master && p.address != ps.uplinkAddress():
		r.Fail()
	}
	switch op {
	case laneAsk:
		if lost := r.Uint(); !r.Bad {
			ps.makeLane(p, address, lost)
		}
	case laneGrant:
		incarnation, number := r.Uint(), r.Uint()
		if r.Bad || len(f.Handles) != 1 {
			r.Fail()
			break
		}
		ps.openLane(address, incarnation, number, f.Handles[0])
		return
	case laneHint:
		ps.hinted(address)
	case laneForget:
		if number := r.Uint(); !r.Bad {
			ps.forgetLane(address, number)
		}
	case laneNoProcess:
		if !r.Bad {
			ps.laneRefused(address, noActor)
		}
	case laneFailed:
		if err := readError(r, nil); !r.Bad {
			ps.laneRefused(address, errorReason(fmt.Errorf("%w: %w", ErrLane, err)))
		}
	default:
		r.Fail()
	}
	f.Refuse(fdipc.ReasonUnknown)
	if r.Bad {
		ps.countMalformed(p.address, wire.KindLane)
	}
}

// openLane takes this process's end of a lane.
func (ps *peers) openLane(address string, incarnation, number uint64, h *fdipc.Handle) {
	p, former := ps.expectLane(address, incarnation, number)
	if p == nil {
		h.Refuse(fdipc.ReasonClosed)
		return
	}
	ready := make(chan struct{}) // its frames wait until it is open
	before := former             // and until the last one of the former lane is handled
	if before == nil {
		before = ready
	}
	cfg := fdipc.Config{
		Credits: laneCredits,
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			<-ready
			<-before
			if !ps.events.handleFrame(p, f) {
				f.Refuse(fdipc.ReasonUnknown)
			}
		},
		NoFiles: func(_ *fdipc.Conn, f *fdipc.Frame) {
			<-ready
			<-before
			ps.events.handlesLost(p, f)
		},
		Closed: func(*fdipc.Conn, error) {
			<-ready
			ps.laneConnEnded(p)
		},
	}
	c, err := connOf(h, cfg)
	if err != nil {
		close(ready)
		ps.log.Error("no channel to a sibling", slog.String("to", address), slog.Any("error", err))
		ps.dropLane(p, errorReason(fmt.Errorf("%w: %w", ErrLane, err)))
		return
	}
	opened := p.open(c)
	close(ready)
	if !opened { // detached meanwhile
		_ = c.Close()
		return
	}
	ps.announceTypes(p)
	ps.watchIdle(p)
}

// laneHandleLost gives up a lane whose end did not arrive. The next message asks for another.
func (ps *peers) laneHandleLost(address string, incarnation, number uint64) {
	if p, _ := ps.expectLane(address, incarnation, number); p != nil {
		ps.dropLane(p, errorReason(fmt.Errorf("%w: %w", ErrLane, fdipc.ErrNoFiles)))
	}
}

// expectLane returns the peer that a new lane is for; nil: it is not wanted. former is closed when
// nothing more comes of the lane that it replaces, if that had not ended: its reader may have a
// frame in hand.
func (ps *peers) expectLane(address string, incarnation, number uint64) (_ *peer, former <-chan struct{}) {
	for {
		ps.mu.Lock()
		_, gone := ps.ended.find(address)
		p := ps.byAddress[address]
		switch {
		case gone || ps.closed.Load() || p != nil && !p.lane:
			ps.mu.Unlock()
			return nil, nil
		case p == nil:
			p = ps.newLaneLocked(address)
			fallthrough
		case p.pending():
			p.incarnation, p.number = incarnation, number
			ps.mu.Unlock()
			return p, former
		case p.number >= number:
			ps.mu.Unlock()
			return nil, nil
		}
		ps.mu.Unlock()
		if c := ps.dropLane(p, errorReason(ErrLane)); c != nil { // the other end has lost it
			former = c.Done()
		} else if p.rested.Load() { // the other end has left it, and says so on it
			former = p.rest.over
		}
	}
}

// laneConnEnded takes note that a lane's Conn has ended and all its frames were handled.
func (ps *peers) laneConnEnded(p *peer) {
	up := ps.uplinkAddress()
	orphan := up != "" && ps.find(up) == nil
	ps.mu.Lock()
	delete(ps.left, p)
	ps.mu.Unlock()
	p.mu.Lock()
	p.connEnded = true
	reason, forgotten := p.endReason, p.forgotten
	p.rest.endLocked()
	if reason == nil && !orphan && !p.closed && !forgotten {
		p.timer = time.AfterFunc(ps.laneGrace, func() { ps.dropLane(p, errorReason(ErrLane)) })
	}
	p.mu.Unlock()
	switch {
	case reason != nil:
		ps.detach(p, *reason)
	case orphan: // the master cannot say why any more
		ps.detach(p, errorReason(fdipc.ErrPeerLost))
	case forgotten:
		ps.dropLane(p, errorReason(ErrLane))
	}
}

// laneProcessEnded takes the master's word that a sibling's process has ended. The peer is detached
// when its last messages are handled, or after laneReadWait.
func (ps *peers) laneProcessEnded(p *peer, reason supervisor.Reason) {
	p.mu.Lock()
	over := p.connEnded || p.conn == nil
	own := p.laneConn
	p.endReason = &reason
	if !over && !p.closed {
		p.timer = time.AfterFunc(laneReadWait, func() { ps.detach(p, reason) })
	}
	p.mu.Unlock()
	if over {
		ps.detach(p, reason)
		return
	}
	own.PeerGone()
}

// laneRefused ends what waits for a lane that the master does not make.
func (ps *peers) laneRefused(address string, reason supervisor.Reason) {
	if p := ps.find(address); p != nil && p.lane && p.pending() {
		ps.dropLane(p, reason)
	}
}

// forgetLane takes the master's word that a lane to another host has ended, that it is forgotten,
// and that no news of its process is to come.
func (ps *peers) forgetLane(address string, number uint64) {
	ps.mu.Lock()
	if ps.broken[address] == number {
		delete(ps.broken, address)
	}
	p := ps.byAddress[address]
	its := p != nil && p.lane && p.number == number
	if its {
		p.number = 0
	}
	ps.mu.Unlock()
	if !its {
		return
	}
	p.mu.Lock()
	p.forgotten = true
	over := p.connEnded
	p.mu.Unlock()
	if over {
		ps.dropLane(p, errorReason(ErrLane))
	}
}

// dropLane gives up a lane. Unless the reason is that there is no such process, the other process
// may live on: what waits for an actor there ends, what waits for the process goes on waiting. It
// returns the Conn of the lane, which is closing; nil if there was none.
func (ps *peers) dropLane(p *peer, reason supervisor.Reason) *fdipc.Conn {
	if reason.Cause == ErrLane && ps.leave(p) { //nolint:errorlint // it and no other. It was idle: nothing is lost
		ps.events.laneLeft(p.address)
		return nil
	}
	ps.mu.Lock()
	if !ps.removeLocked(p) {
		ps.mu.Unlock()
		return nil
	}
	p.mu.Lock()
	if p.endReason != nil && isUnreachable(*p.endReason) { // known before a new lane came
		reason = *p.endReason
	}
	p.mu.Unlock()
	if p.number != 0 {
		ps.broken[p.address] = p.number
	}
	ps.mu.Unlock()
	own := p.close(reason)
	ps.events.laneDropped(p.address, reason, !p.pending())
	return own
}
