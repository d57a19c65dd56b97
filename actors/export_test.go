package actors

import (
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// Made reports whether protoactor's system exists.
func Made(s *System) bool { return s.proto.ifMade() != nil }

// Queue returns how many messages wait for an actor.
func Queue(s *System, pid *actor.PID) int {
	if inc := s.local.find(pid.Id); inc != nil {
		return inc.box.UserMessageCount()
	}
	return 0
}

// Idle reports whether an actor has nothing to do, and no goroutine.
func Idle(s *System, pid *actor.PID) bool {
	_, idle := s.local.find(pid.Id).box.idle()
	return idle
}

// Foreign returns the ids of the actors that protoactor's ctx.Spawn has made.
func Foreign(s *System) (ids []string) {
	for _, bucket := range s.proto.ifMade().ProcessRegistry.LocalPIDs.LocalPIDs {
		for _, id := range bucket.Keys() {
			if _, ok := s.proto.foreignActor(id); ok && strings.Contains(id, "/") {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// BreakLane ends the channel to a sibling as a protocol error would: both live.
func BreakLane(s *System, address string) { _ = s.peers.find(address).laneConn.Close() }

// SetLaneGrace shortens the wait for the reason of a lane's end.
func SetLaneGrace(s *System, d time.Duration) { s.peers.laneGrace = d }

// SetLaneIdle sets how long nothing goes on a lane to another host before it is left.
func SetLaneIdle(s *System, d time.Duration) { s.peers.laneIdle = d }

// Leave has a process look at its lane to another one as if nothing had gone on it for long.
func Leave(s *System, address string) { s.peers.hinted(address) }

// Says of the processes of a lane that is to be left.
const (
	LaneIdle = laneIdle
	LaneHeld = laneHeld
	LaneOver = laneOver
	LaneKeep = laneKeep
)

// LaneOp returns what a frame on a lane says of the lane; 0: nothing.
func LaneOp(f *fdipc.Frame) byte {
	if f.Kind != wire.KindLane {
		return 0
	}
	r := &wire.Reader{B: f.Payload}
	r.PID("")
	return r.Byte()
}

// Inbound returns how many asks of other processes are taken and not answered.
func Inbound(s *System) int {
	s.inbound.mu.Lock()
	defer s.inbound.mu.Unlock()
	return len(s.inbound.asks)
}

// FailLanes makes the master's making of lanes do f first, and fail if f does.
func FailLanes(s *System, f func() error) {
	s.peers.broker.makeEnds = func(a, b Conn) (*fdipc.Handle, *fdipc.Handle, error) {
		if err := f(); err != nil {
			return nil, nil, err
		}
		return laneEnds(a, b)
	}
}

// LoseLane makes it that a lane is found and is closed when it is used.
func LoseLane(s *System, address string, why error) {
	p := newPeer(s.localProcess, s.peers.slot(address), address)
	p.lane = true
	s.peers.mu.Lock()
	s.peers.byAddress[address] = p
	s.peers.mu.Unlock()
	p.close(errorReason(why))
}

// WantLane asks the master for a lane as a child that has lost one with a number.
func WantLane(s *System, address string, lost uint64) {
	s.peers.mu.Lock()
	delete(s.peers.byAddress, address)
	s.peers.broken[address] = lost
	s.peers.mu.Unlock()
	_, _ = s.peers.askLane(address)
}

// Fill makes it look as if n notices waited for a process that does not read.
func Fill(s *System, address string, n int) (empty func()) {
	p := s.peers.find(address)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sendDirect[fdipc.Control].Store(false)
	p.backlog[fdipc.Control] = backlog{notices: make([]fdipc.Frame, n), flushing: make(chan struct{})}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		b := &p.backlog[fdipc.Control]
		b.notices = b.notices[n:]
		close(b.flushing)
		p.flushLocked(fdipc.Control)
	}
}

const MaxGrants = maxGrants

// LaneNumber returns the number of the lane between two processes that is open; 0: there is none.
func LaneNumber(s *System, address string) uint64 {
	if p := s.peers.find(address); p != nil && !p.pending() {
		return p.number
	}
	return 0
}

// Asking reports whether a process has asked another.
func Asking(s *System, address string) bool { return len(s.asks.askedAt(address)) > 0 }

// HasLink reports whether a process has a way to another, or waits for it.
func HasLink(s *System, address string) bool { return s.peers.find(address) != nil }

const MaxRemembered = maxRemembered

// Remembered returns how many names the master keeps for its children.
func Remembered(s *System) int {
	s.names.changes.mu.Lock()
	defer s.names.changes.mu.Unlock()
	return len(s.names.changes.remembering)
}

// Waiting reports whether a sender waits for room with an actor.
func Waiting(s *System, pid *actor.PID) bool {
	inc := s.local.find(pid.Id)
	inc.box.mu.Lock()
	defer inc.box.mu.Unlock()
	return inc.box.room != nil
}

// Watched returns how many monitors of other processes watch actors here.
func Watched(s *System) (n int) {
	s.inbound.mu.Lock()
	defer s.inbound.mu.Unlock()
	for _, set := range s.inbound.monitors {
		n += len(set)
	}
	return n
}

// ShortSettle shortens the wait for mailboxes of Suspend for the rest of a test.
func ShortSettle(t testing.TB) {
	before := maxSettle
	maxSettle = 10 * time.Millisecond
	t.Cleanup(func() { maxSettle = before })
}

// OnHold reports whether an actor keeps its messages.
func OnHold(s *System, pid *actor.PID) bool {
	inc := s.local.find(pid.Id)
	inc.box.mu.Lock()
	defer inc.box.mu.Unlock()
	return inc.box.onHold
}

// NewestLane returns the number of the newest lane that a master has made.
func NewestLane(s *System) uint64 {
	s.peers.mu.RLock()
	defer s.peers.mu.RUnlock()
	return s.peers.broker.last
}

// Unacknowledged returns how many changes of names wait for children.
func Unacknowledged(s *System) int {
	s.names.changes.mu.Lock()
	defer s.names.changes.mu.Unlock()
	return len(s.names.changes.open)
}

// LostLanes returns how many lanes this process remembers to have lost.
func (s *System) LostLanes() int {
	s.peers.mu.Lock()
	defer s.peers.mu.Unlock()
	return len(s.peers.broken)
}
