package netactor

import (
	"os"
	"slices"
	"strings"
)

// migrates reports whether the kernel gives what waits in the backlog of a ReusePort socket that is
// closed to the others (net.ipv4.tcp_migrate_req, Linux 5.14). Else it is reset: what a
// worker leaves behind that nobody replaces.
func migrates() bool {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_migrate_req")
	return err == nil && strings.TrimSpace(string(b)) != "0"
}

// memberState is one of the sockets behind a ReusePort listener. Each worker accepts on one
// of its own, and the kernel spreads the clients over all that listen. They are the master's, so
// that what waits in the backlog of one whose worker has died is there for the replacement.
//
// The first member is there as soon as the listener is: clients wait in its backlog until the
// first worker comes.
type memberState struct {
	index int
	slot  int             // whose it is, also while that worker is being replaced; -1: nobody's
	held  map[uint64]bool // live workers that have it: two of one slot in a reload
}

// memberFor returns the member that a worker is to accept on: the one that it has, though it was
// shut down, else that of its slot, else one that is nobody's, else a new one.
func (s *socketState) memberFor(w Worker) *memberState {
	i := slices.IndexFunc(s.members, func(m *memberState) bool { return m.held[w.ID] })
	if i < 0 {
		i = slices.IndexFunc(s.members, func(m *memberState) bool { return w.Slot >= 0 && m.slot == w.Slot })
	}
	if i < 0 {
		i = slices.IndexFunc(s.members, func(m *memberState) bool { return m.slot < 0 && len(m.held) == 0 })
	}
	if i < 0 {
		i = len(s.members)
		s.members = append(s.members, s.newMember())
	}
	m := s.members[i]
	m.slot = w.Slot
	m.held[w.ID] = true
	return m
}

func (s *socketState) newMember() *memberState {
	m := &memberState{index: s.last, slot: -1, held: make(map[uint64]bool)}
	s.last++
	return m
}

// release takes a worker off its member. closed says that nobody takes its place there: then the
// member goes, unless it is the last one.
func (s *socketState) release(worker uint64, closed bool) []effect {
	for i, m := range s.members {
		if !m.held[worker] {
			continue
		}
		delete(m.held, worker)
		switch {
		case !closed || len(m.held) > 0:
		case len(s.members) == 1:
			m.slot = -1
		default:
			s.members = slices.Delete(s.members, i, i+1)
			return []effect{{do: doRetire, number: s.number, member: m.index}}
		}
		break
	}
	return nil
}

// memberOf returns the index of the member that a worker has; 0 under the other policies.
func (s *socketState) memberOf(worker uint64) int {
	for _, m := range s.members {
		if m.held[worker] {
			return m.index
		}
	}
	return 0
}
