package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// A lane is a channel between two children. The first message for a sibling makes
// one: the child asks the master, which makes a pair of sockets and gives one end
// to each. Nothing between two children passes the master, so that there is no
// order to keep between two ways; what is sent before the lane is there waits for it.
//
//	opening --grant--> open --its Conn ends, and the master says why--> detached
//	   |                    --its Conn ends, and nobody says why for laneGrace--> dropped
//	   +--nobody there, or its end--> detached
//
// The master numbers lanes and keeps the newest number of each pair. Whoever asks
// says which one it has lost; one that asks while a newer one is on its way is not
// answered. So there is at most one lane a pair, whoever asks first and how often.
//
// Who has a lane hears the end of the other process twice, in any order: the Conn
// ends, when all that was sent has been handled, and the master says that it is
// gone, and why. The second of them detaches.

// Operations of lane frames.
const (
	laneAsk       byte = 1 // child to master: address, number lost
	laneGrant     byte = 2 // master to child: address, incarnation, number; one handle
	laneNoProcess byte = 3 // master to child: address
	laneFailed    byte = 4 // master to child: address, error
)

const (
	// defaultLaneGrace is how long the end of a sibling's process may come after the end
	// of its lane, before the lane is taken for broken.
	defaultLaneGrace = 2 * time.Second
	// laneReadWait is how long what a dead sibling has sent may keep its end from
	// being known.
	laneReadWait = time.Second
	// maxGrants bounds the ends of lanes, which are descriptors of the master, that
	// wait for a child which does not read. Beyond it a lane is refused.
	maxGrants = 1024
	// laneCredits bounds the handles that are on their way in one direction.
	laneCredits = 256
)

// addressPair names two processes, the lower address first.
type addressPair struct{ a, b string }

func pairOf(a, b string) addressPair {
	if a > b {
		a, b = b, a
	}
	return addressPair{a, b}
}

// askLane returns a peer that opens when the master has made a lane.
func (s *System) askLane(address string) (*peer, error) {
	s.mu.Lock()
	if p := s.peers[address]; p != nil {
		s.mu.Unlock()
		return p, nil
	}
	for _, a := range []string{address, s.uplink} {
		if r, ok := s.endedProcesses.find(a); ok {
			s.mu.Unlock()
			return nil, downError(ProcessPID(a), r)
		}
	}
	up := s.peers[s.uplink]
	if up == nil || checkName(address) != nil || s.closed.Load() {
		s.mu.Unlock()
		return nil, ErrNoActor
	}
	p := newPeer(s, address)
	p.lane = true
	s.peers[address] = p
	lost := s.brokenLanes[address]
	s.mu.Unlock()
	up.post(s.frame(wire.KindLane, fdipc.Control), func(b []byte) []byte {
		b = append(wire.AppendPID(b, ProcessPID(up.address)), laneAsk)
		return binary.AppendUvarint(wire.AppendString(b, address), lost)
	})
	return p, nil
}

// onLane serves a child's request, or takes the master's answer.
func (s *System) onLane(p *peer, f *fdipc.Frame, r *wire.Reader) {
	op, address := r.Byte(), r.Text(wire.MaxAddress)
	if master := !s.hasUplink(); master != (op == laneAsk) || !master && p.address != s.uplinkAddress() {
		r.Fail()
	}
	switch op {
	case laneAsk:
		if lost := r.Uint(); !r.Bad {
			s.makeLane(p, address, lost)
		}
	case laneGrant:
		incarnation, number := r.Uint(), r.Uint()
		if r.Bad || len(f.Handles) != 1 {
			r.Fail()
			break
		}
		s.openLane(address, incarnation, number, f.Handles[0])
		return
	case laneNoProcess:
		s.laneRefused(address, noActor)
	case laneFailed:
		if err := readError(r, nil); !r.Bad {
			s.laneRefused(address, errorReason(fmt.Errorf("%w: %w", ErrLane, err)))
		}
	default:
		r.Fail()
	}
	f.Refuse(fdipc.ReasonUnknown)
	if r.Bad {
		s.countMalformed(p, wire.KindLane)
	}
}

// makeLane joins from and the process with an address, in the master.
func (s *System) makeLane(from *peer, address string, lost uint64) {
	key := pairOf(from.address, address)
	busy := from.waiting(fdipc.Control) >= maxGrants
	if p := s.attached(address); p != nil && p.waiting(fdipc.Control) >= maxGrants {
		busy = true
	}
	s.mu.Lock()
	to := s.peers[address]
	reason, gone := s.endedProcesses.find(address)
	switch {
	case s.peers[from.address] != from || from == to:
		s.mu.Unlock()
		return
	case to == nil:
		s.mu.Unlock()
		from.post(s.frame(wire.KindLane, fdipc.Control), func(b []byte) []byte {
			return wire.AppendString(append(wire.AppendPID(b, ProcessPID(from.address)), laneNoProcess), address)
		})
		if gone { // it may have missed the news
			from.post(s.frame(wire.KindProcessEnded, fdipc.Control), func(b []byte) []byte {
				return appendReason(wire.AppendString(wire.AppendPID(b, ProcessPID(from.address)), address), reason)
			})
		}
		return
	case s.lanes[key] > lost:
		s.mu.Unlock()
		return
	case lost > s.laneNumber:
		s.mu.Unlock()
		s.countMalformed(from, wire.KindLane)
		return
	case busy:
		s.mu.Unlock()
		s.refuseLane(from, address, ErrBusy)
		return
	}
	s.laneNumber++
	number := s.laneNumber
	s.lanes[key] = number
	s.mu.Unlock()

	one, other, err := s.laneEnds(from.conn, to.conn)
	if err != nil {
		s.log.Error("no channel between two processes", slog.String("from", from.address), slog.String("to", address), slog.Any("error", err))
		s.mu.Lock()
		if s.lanes[key] == number {
			delete(s.lanes, key)
		}
		s.mu.Unlock()
		// To both: one that has asked meanwhile was not answered.
		s.refuseLane(from, address, err)
		s.refuseLane(to, from.address, err)
		return
	}
	s.grant(from, to, number, one)
	s.grant(to, from, number, other)
}

// refuseLane tells l that there is no lane to the process with an address.
func (s *System) refuseLane(p *peer, address string, err error) {
	p.post(s.frame(wire.KindLane, fdipc.Control), func(b []byte) []byte {
		b = append(wire.AppendPID(b, ProcessPID(p.address)), laneFailed)
		return appendError(wire.AppendString(b, address), err)
	})
}

// grant gives l its end of a lane to peer.
func (s *System) grant(p, peer *peer, number uint64, h *fdipc.Handle) {
	f := s.frame(wire.KindLane, fdipc.Control)
	f.Handles = []*fdipc.Handle{h}
	p.post(f, func(b []byte) []byte {
		b = append(wire.AppendPID(b, ProcessPID(p.address)), laneGrant)
		b = binary.AppendUvarint(wire.AppendString(b, peer.address), peer.incarnation)
		return binary.AppendUvarint(b, number)
	})
}

// laneEnds makes the two ends of a lane, as handles: sockets, or values where
// both children are goroutines of this process.
func laneEnds(a, b Conn) (*fdipc.Handle, *fdipc.Handle, error) {
	if inProcess(a) && inProcess(b) {
		x, y := laneInMemory()
		h, err1 := fdipc.HandleOf(x)
		g, err2 := fdipc.HandleOf(y)
		return h, g, errors.Join(err1, err2)
	}
	x, y, err := fdipc.Socketpair()
	if err != nil {
		return nil, nil, err
	}
	h, err := fdipc.HandleOf(x)
	if err != nil {
		return nil, nil, errors.Join(err, x.Close(), y.Close())
	}
	g, err := fdipc.HandleOf(y)
	if err != nil {
		return nil, nil, errors.Join(err, h.Close(), y.Close())
	}
	return h, g, nil
}

func inProcess(c Conn) bool {
	m, ok := c.(interface{ InProcess() bool })
	return ok && m.InProcess()
}

// memoryEnd is an end of a lane within the process, on its way as a handle: a
// net.Conn in name only. Frames for it wait until it has an owner.
type memoryEnd struct {
	net.Conn
	conn  *fdipc.Conn
	once  sync.Once
	owned chan struct{} // closed when owner is set, or the end is given up
	owner fdipc.Config
}

func laneInMemory() (a, b *memoryEnd) {
	a, b = &memoryEnd{owned: make(chan struct{})}, &memoryEnd{owned: make(chan struct{})}
	a.conn, b.conn = fdipc.Pipe(a.config(), b.config())
	return a, b
}

func (e *memoryEnd) config() fdipc.Config {
	return fdipc.Config{
		Credits: laneCredits,
		Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			<-e.owned
			if e.owner.Handler == nil {
				f.Refuse(fdipc.ReasonClosed)
				return
			}
			e.owner.Handler(c, f)
		},
		Closed: func(c *fdipc.Conn, err error) {
			<-e.owned
			if e.owner.Closed != nil {
				e.owner.Closed(c, err)
			}
		},
	}
}

func (e *memoryEnd) own(cfg fdipc.Config) *fdipc.Conn {
	e.once.Do(func() {
		e.owner = cfg
		close(e.owned)
	})
	return e.conn
}

// Close gives up an end that nobody has taken.
func (e *memoryEnd) Close() error {
	e.own(fdipc.Config{})
	return e.conn.Close()
}

// openLane takes this process's end of a lane.
func (s *System) openLane(address string, incarnation, number uint64, h *fdipc.Handle) {
	p := s.expectLane(address, number)
	if p == nil {
		h.Refuse(fdipc.ReasonClosed)
		return
	}
	s.mu.Lock()
	p.incarnation, p.number = incarnation, number
	s.mu.Unlock()
	ready := make(chan struct{}) // its frames wait until it is open
	cfg := fdipc.Config{
		Credits: laneCredits,
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			<-ready
			if !s.handleFrom(p, f) {
				f.Refuse(fdipc.ReasonUnknown)
			}
		},
		NoFiles: func(_ *fdipc.Conn, f *fdipc.Frame) {
			<-ready
			s.lostFrom(p, f)
		},
		Closed: func(*fdipc.Conn, error) {
			<-ready
			s.laneConnEnded(p)
		},
	}
	c, err := connOf(h, cfg)
	if err != nil {
		close(ready)
		s.log.Error("no channel to a sibling", slog.String("to", address), slog.Any("error", err))
		s.dropLane(p, errorReason(fmt.Errorf("%w: %w", ErrLane, err)))
		return
	}
	opened := p.open(c)
	close(ready)
	if !opened { // detached meanwhile
		_ = c.Close()
		return
	}
	s.announceTypes(p)
}

// laneHandleLost gives up a lane whose end did not arrive. The next message asks for another.
func (s *System) laneHandleLost(address string, incarnation, number uint64) {
	p := s.expectLane(address, number)
	if p == nil {
		return
	}
	s.mu.Lock()
	p.incarnation, p.number = incarnation, number
	s.mu.Unlock()
	s.dropLane(p, errorReason(fmt.Errorf("%w: %w", ErrLane, fdipc.ErrNoFiles)))
}

// expectLane returns the peer that a new lane is for; nil: it is not wanted.
func (s *System) expectLane(address string, number uint64) *peer {
	for {
		s.mu.Lock()
		_, gone := s.endedProcesses.find(address)
		p := s.peers[address]
		switch {
		case gone || s.closed.Load() || p != nil && !p.lane:
			s.mu.Unlock()
			return nil
		case p == nil:
			p = newPeer(s, address)
			p.lane = true
			s.peers[address] = p
			fallthrough
		case p.pending():
			s.mu.Unlock()
			return p
		case p.number >= number:
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		s.dropLane(p, errorReason(ErrLane)) // the other end has lost it
	}
}

// pending says that the peer has not been opened.
func (p *peer) pending() bool {
	select {
	case <-p.opened:
		return false
	default:
		return true
	}
}

func connOf(h *fdipc.Handle, cfg fdipc.Config) (*fdipc.Conn, error) {
	if h.Kind() == fdipc.HandleValue {
		v, err := h.Conn()
		if err != nil {
			return nil, err
		}
		if e, ok := v.(*memoryEnd); ok {
			return e.own(cfg), nil
		}
		_ = v.Close()
		return nil, fdipc.ErrHandleKind
	}
	f, err := h.File()
	if err != nil {
		return nil, err
	}
	return fdipc.New(f, cfg)
}

// laneConnEnded is told that a lane's Conn has ended and all that came was handled.
func (s *System) laneConnEnded(p *peer) {
	orphan := s.attached(s.uplinkAddress()) == nil
	p.mu.Lock()
	p.connEnded = true
	reason := p.endReason
	if reason == nil && !orphan && !p.closed {
		p.timer = time.AfterFunc(s.laneGrace, func() { s.dropLane(p, errorReason(ErrLane)) })
	}
	p.mu.Unlock()
	switch {
	case reason != nil:
		s.detach(p, *reason)
	case orphan: // nobody will say why
		s.detach(p, errorReason(fdipc.ErrPeerLost))
	}
}

// laneProcessEnded is told that a sibling's process has ended. The end is known when its
// last messages are handled, or do not let themselves be.
func (s *System) laneProcessEnded(p *peer, reason supervisor.Reason) {
	p.mu.Lock()
	over := p.connEnded || p.conn == nil
	own := p.laneConn
	p.endReason = &reason
	if !over && !p.closed {
		p.timer = time.AfterFunc(laneReadWait, func() { s.detach(p, reason) })
	}
	p.mu.Unlock()
	if over {
		s.detach(p, reason)
		return
	}
	own.PeerGone()
}

// laneRefused ends what waits for a lane that will not be.
func (s *System) laneRefused(address string, reason supervisor.Reason) {
	if p := s.attached(address); p != nil && p.lane && p.pending() {
		s.dropLane(p, reason)
	}
}

// dropLane gives up a lane. Its other process lives, for all we know, unless the
// reason is that there is none: what waits for an actor there ends, what waits for
// the process goes on waiting.
func (s *System) dropLane(p *peer, reason supervisor.Reason) {
	s.mu.Lock()
	if s.peers[p.address] != p {
		s.mu.Unlock()
		return
	}
	delete(s.peers, p.address)
	if p.number != 0 {
		s.brokenLanes[p.address] = p.number
	}
	s.mu.Unlock()
	p.close(reason)
	s.asks.failAt(p.address, reason)
	s.monitors.fireAt(p.address, reason, isNoActor(reason))
	s.inbound.dropOne(p.address)
}
