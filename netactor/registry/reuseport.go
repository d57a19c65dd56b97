package registry

import (
	"slices"

	"github.com/coppice-go/coppice/netactor"
)

// groupSocket is one of the sockets behind a ReusePort listener. Each worker accepts on one
// of its own, and the kernel spreads the clients over all that listen. They are the master's, so
// that what waits in the backlog of one whose worker has died is there for the replacement.
//
// The first member is there as soon as the listener is: clients wait in its backlog until the
// first worker comes.
type groupSocket struct {
	index   int
	slot    int             // whose it is, also while that worker is being replaced; -1: nobody's
	holders map[uint64]bool // live workers that have it: two of one slot in a reload
}

// groupSocketFor returns the member that a worker is to accept on: the one that it has, though it was
// shut down, else that of its slot, else one that is nobody's, else a new one.
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
	g := &groupSocket{index: s.lastMember, slot: -1, holders: make(map[uint64]bool)}
	s.lastMember++
	return g
}

// release takes a worker off its member. closed says that nobody takes its place there: then the
// member goes, unless it is the last one.
func (s *socketState) release(worker uint64, closed bool) []effect {
	for i, g := range s.group {
		if !g.holders[worker] {
			continue
		}
		delete(g.holders, worker)
		switch {
		case !closed || len(g.holders) > 0:
		case len(s.group) == 1:
			g.slot = -1
		default:
			s.group = slices.Delete(s.group, i, i+1)
			return []effect{{kind: doRetire, number: s.number, groupIndex: g.index}}
		}
		break
	}
	return nil
}

// groupIndexOf returns the index of the member that a worker has; 0 under the other policies.
func (s *socketState) groupIndexOf(worker uint64) int {
	for _, g := range s.group {
		if g.holders[worker] {
			return g.index
		}
	}
	return 0
}
