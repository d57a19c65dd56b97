package registry

import (
	"slices"

	"github.com/coppice-go/coppice/netactor"
)

// groupSocket is one of the sockets behind a ReusePort listener. Each worker accepts on a different
// socket, and the kernel spreads the clients over all sockets that listen. The master owns the
// sockets, so that the clients in a dead worker's backlog are there for its replacement.
//
// The first member exists as soon as the listener does: clients wait in its backlog until the first
// worker comes.
type groupSocket struct {
	index   int
	slot    int             // the worker's slot, also while that worker is being replaced; or netactor.None
	holders map[uint64]bool // live workers that have it: during a reload, two of one slot
}

// groupSocketFor returns the member for a worker to accept on: the member that it has, even if that
// was shut down; else the member of its slot; else a member without a slot and holders; else a new
// one.
func (s *socketState) groupSocketFor(w netactor.Worker) *groupSocket {
	i := slices.IndexFunc(s.group, func(g *groupSocket) bool { return g.holders[w.ID] })
	if i < 0 {
		i = slices.IndexFunc(s.group, func(g *groupSocket) bool { return w.Slot >= 0 && g.slot == w.Slot })
	}
	if i < 0 {
		i = slices.IndexFunc(s.group, func(g *groupSocket) bool { return g.slot < 0 && len(g.holders) == 0 })
	}
	if i < 0 {
		i = len(s.group)
		s.group = append(s.group, s.newGroupSocket())
	}
	g := s.group[i]
	g.slot = w.Slot
	g.holders[w.ID] = true
	return g
}

func (s *socketState) newGroupSocket() *groupSocket {
	g := &groupSocket{index: s.lastMember, slot: netactor.None, holders: make(map[uint64]bool)}
	s.lastMember++
	return g
}

// release takes a worker off its member. If closed is set, no other worker takes its place there,
// and the member is retired, unless it is the last one.
func (s *socketState) release(worker uint64, closed bool) []effect {
	for i, g := range s.group {
		if !g.holders[worker] {
			continue
		}
		delete(g.holders, worker)
		switch {
		case !closed || len(g.holders) > 0:
		case len(s.group) == 1:
			g.slot = netactor.None
		default:
			s.group = slices.Delete(s.group, i, i+1)
			return []effect{{kind: doRetire, number: s.number, groupIndex: g.index}}
		}
		break
	}
	return nil
}

// groupIndexOf returns the index of the member that a worker has; 0 with the other policies.
func (s *socketState) groupIndexOf(worker uint64) int {
	for _, g := range s.group {
		if g.holders[worker] {
			return g.index
		}
	}
	return 0
}
