package balance

import (
	"maps"

	"github.com/coppice-go/coppice/netactor"
)

// poolState is the part that the workers of one pool take in a listener. While a pool is being
// reloaded, a client that a worker closes with its drain reconnects; a worker of an older
// generation would soon close it again. So a worker has no room while a worker of a newer
// generation of its pool takes connections, also if that one's window is full for the moment. A
// newer worker that is suspended, or at its limit, does not count, nor does one that has claimed
// nothing since its suspension: it may have listened long before it accepts.
//
// Generations of different pools are not compared: pools are reloaded one after the other. Nor are
// those of workers that say so, for a canary: one is judged beside the other.
type poolState struct {
	generations map[int]int // how many workers of a generation take part
	newest      int
	able        int // workers of the newest generation that take connections
}

// rank returns the generation by which w is compared with others of its pool.
func rank(w netactor.Worker) int {
	if w.Beside {
		return 0
	}
	return w.Generation
}

// joinPool counts m, which begins to take part.
func (b *Balancer) joinPool(m *Membership) {
	l, w := m.Listener, m.Worker.Worker
	p := l.pools[w.Pool]
	if p == nil {
		p = &poolState{generations: map[int]int{}}
		l.pools[w.Pool] = p
	}
	m.pool = p
	p.generations[rank(w)]++
	b.sortPool(l, p)
}

// leavePool ends joinPool. update(m) came before.
func (b *Balancer) leavePool(m *Membership) {
	l, w := m.Listener, m.Worker.Worker
	p := m.pool
	if p.generations[rank(w)]--; p.generations[rank(w)] == 0 {
		delete(p.generations, rank(w))
	}
	if m.pool = nil; len(p.generations) == 0 {
		delete(l.pools, w.Pool)
	}
	b.sortPool(l, p)
}

// sortPool updates the workers of a pool if its newest generation is another one now.
func (b *Balancer) sortPool(l *ListenerState, p *poolState) {
	newest := 0
	for generation := range maps.Keys(p.generations) {
		newest = max(newest, generation)
	}
	if newest == p.newest {
		return
	}
	p.newest = newest
	b.updatePool(l, p)
}

func (b *Balancer) updatePool(l *ListenerState, p *poolState) {
	for _, m := range l.Members {
		if m.pool == p {
			b.update(m)
		}
	}
}

// outdated reports whether a newer generation of m's pool takes part.
func (m *Membership) outdated() bool {
	return m.pool != nil && rank(m.Worker.Worker) < m.pool.newest
}

// yields reports whether m gets no connections because a newer worker takes them.
func (m *Membership) yields() bool { return m.outdated() && m.pool.able > 0 }
