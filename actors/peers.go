package actors

import (
	"context"
	"fmt"
	"maps"
	"sync/atomic"

	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// Conn is what a System needs of a channel to another process; a *fdipc.Conn is one.
// The payload of a frame is borrowed until the call returns.
type Conn interface {
	Send(ctx context.Context, f *fdipc.Frame) error
	TrySend(f *fdipc.Frame) error
}

// Attach makes the process with an address reachable through c. Its frames are
// taken from then on, if they carry the incarnation. The peer must attach this
// process too, with [Config].Incarnation of this one.
//
// Attach the same again and nothing happens, so that a frame handler which does
// not know whether it came first may call it. A later incarnation detaches the
// one before, an earlier one is [ErrStale]. The caller keeps c, and closes it.
func (s *System) Attach(address string, incarnation uint64, c Conn) error {
	if err := checkName(address); err != nil || address == s.cfg.Address {
		return fmt.Errorf("actors: attach %q: %w", address, ErrName)
	}
	p := newPeer(s, address)
	p.incarnation = incarnation
	p.open(c)
	for {
		s.mu.Lock()
		old := s.peers[address]
		switch {
		case s.closed.Load():
			s.mu.Unlock()
			return fmt.Errorf("actors: attach %q: %w", address, ErrClosed)
		case old == nil:
			s.peers[address] = p
			s.endedProcesses.forget(address)
			s.mu.Unlock()
			s.announceTypes(p)
			return nil
		case !old.lane && old.incarnation == incarnation && old.conn == c:
			s.mu.Unlock()
			return nil
		case !old.lane && old.incarnation >= incarnation:
			s.mu.Unlock()
			return fmt.Errorf("actors: attach %q: %w: %d, attached is %d", address, ErrStale, incarnation, old.incarnation)
		}
		s.mu.Unlock()
		s.detach(old, errorReason(ErrStale))
	}
}

// Detach says that the process with an address has ended, and why. Everything
// that waits for it ends, at once: asks, in flight or taken, fail with a
// [DownError], monitors fire, watchers get Terminated, its names are free, and the master
// tells all other processes. Frames of it that come later are refused.
//
// Call it after the Conn's Closed, so that the process's last messages are in,
// and when the exit reason is known. Detach of what is not attached does nothing.
func (s *System) Detach(address string, reason supervisor.Reason) {
	if p := s.attached(address); p != nil {
		s.detach(p, reason)
	}
}

func (s *System) detach(p *peer, reason supervisor.Reason) {
	s.mu.Lock()
	if s.peers[p.address] != p {
		s.mu.Unlock()
		return
	}
	delete(s.peers, p.address)
	delete(s.brokenLanes, p.address)
	s.endedProcesses.add(p.address, reason)
	master := s.uplink == ""
	orphaned := !master && p.address == s.uplink
	var rest []*peer
	for _, other := range s.peers {
		if master || orphaned && other.pending() {
			rest = append(rest, other)
		}
	}
	for pair := range s.lanes {
		if pair.a == p.address || pair.b == p.address {
			delete(s.lanes, pair)
		}
	}
	s.mu.Unlock()
	p.close(reason)
	s.ended(p.address, reason)
	for _, other := range rest {
		if orphaned { // nobody will give it a lane
			s.detach(other, reason)
			continue
		}
		other.post(s.frame(wire.KindProcessEnded, fdipc.Control), func(b []byte) []byte {
			b = wire.AppendPID(b, ProcessPID(other.address))
			return appendReason(wire.AppendString(b, p.address), reason)
		})
	}
	if orphaned { // of whose end we shall not hear, we shall not hear
		lost := s.inbound.addresses()
		maps.DeleteFunc(lost, func(a string, _ struct{}) bool { return s.attached(a) != nil })
		s.inbound.drop(func(a string) bool { _, ok := lost[a]; return ok })
	}
}

// attached returns the peer of a process, attached or by lane. What was found last
// stands before the map: each message asks.
func (s *System) attached(address string) *peer {
	at := s.recentPeer(address)
	if p := at.Load(); p != nil && p.address == address && !p.ended.Load() {
		return p
	}
	s.mu.RLock()
	p := s.peers[address]
	s.mu.RUnlock()
	if p == nil {
		return nil
	}
	at.Store(p)
	// Who closes the peer sets ended, then forgets it here: one of us sees the other.
	if p.ended.Load() {
		at.CompareAndSwap(p, nil)
	}
	return p
}

// recentPeer is where a peer to an address was left when it was last looked up.
func (s *System) recentPeer(address string) *atomic.Pointer[peer] {
	if address == "" {
		return &s.recentPeers[0]
	}
	return &s.recentPeers[address[len(address)-1]%byte(len(s.recentPeers))]
}

// ended ends all that waits for a process, or came from it.
func (s *System) ended(address string, reason supervisor.Reason) {
	s.names.processEnded(address)
	s.asks.failAt(address, reason)
	s.monitors.fireAt(address, reason, true)
	s.inbound.dropOne(address)
}

// Uplink names the attached process, the master, that resolves names, makes
// lanes to the processes that are not attached, and tells of their end. The
// master has none.
func (s *System) Uplink(address string) {
	s.mu.Lock()
	s.uplink = address
	s.mu.Unlock()
}

func (s *System) uplinkAddress() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.uplink
}

func (s *System) hasUplink() bool { return s.uplinkAddress() != "" }

// route returns the peer on which a frame for an address leaves. In a child it
// asks for a lane where there is none yet.
func (s *System) route(address string) (*peer, error) {
	if p := s.attached(address); p != nil {
		return p, nil
	}
	return s.askLane(address)
}

// endedProcesses keeps the exit reasons of the latest processes that have ended.
type endedProcesses struct {
	reasons map[string]supervisor.Reason
	order   []string
}

const maxEndedProcesses = 1024

func (g *endedProcesses) add(address string, r supervisor.Reason) {
	if g.reasons == nil {
		g.reasons = make(map[string]supervisor.Reason)
	}
	if _, ok := g.reasons[address]; !ok {
		g.order = append(g.order, address)
	}
	g.reasons[address] = r
	if len(g.order) > maxEndedProcesses {
		delete(g.reasons, g.order[0])
		g.order = append(g.order[:0], g.order[1:]...)
	}
}

func (g *endedProcesses) forget(address string) {
	if _, ok := g.reasons[address]; !ok {
		return
	}
	delete(g.reasons, address)
	for i, a := range g.order {
		if a == address {
			g.order = append(g.order[:i], g.order[i+1:]...)
			return
		}
	}
}

func (g *endedProcesses) find(address string) (supervisor.Reason, bool) {
	r, ok := g.reasons[address]
	return r, ok
}
