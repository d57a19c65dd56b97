package actors

import (
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Made says whether protoactor's system exists.
func Made(s *System) bool { return s.made() != nil }

// Queue returns how many messages wait for an actor.
func Queue(s *System, pid *actor.PID) int {
	if c := s.cells.find(pid.Id); c != nil {
		return c.box.UserMessageCount()
	}
	return 0
}

// Foreign returns the ids of the actors that protoactor's ctx.Spawn has made.
func Foreign(s *System) (ids []string) {
	for _, bucket := range s.made().ProcessRegistry.LocalPIDs.LocalPIDs {
		for _, id := range bucket.Keys() {
			if _, ok := s.foreign(id); ok && strings.Contains(id, "/") {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// BreakLane ends the channel to a sibling as a protocol error would: both live.
func BreakLane(s *System, address string) { _ = s.attached(address).own.Close() }

// SetLaneGrace shortens the wait for the reason of a lane's end.
func SetLaneGrace(s *System, d time.Duration) { s.laneGrace = d }

// Inbound returns how many asks of other processes are taken and not answered.
func Inbound(s *System) (n int) {
	s.inbound.mu.Lock()
	defer s.inbound.mu.Unlock()
	for _, set := range s.inbound.asks {
		n += len(set)
	}
	return n
}
