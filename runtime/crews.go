package coppice

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// Defaults of a pool.
const (
	defaultPoolShutdown = 10 * time.Second
	spareRetry          = time.Second // first wait after a spare, or a recycling, has failed
	maxSpareRetry       = time.Minute
)

// complete returns p with every zero value replaced by its default.
func (p Pool) complete() Pool {
	p.Size = p.size()
	if p.Intensity == (supervisor.Intensity{}) {
		p.Intensity = poolIntensity
	}
	p.StartTimeout = cmp.Or(p.StartTimeout, defaultStartTimeout)
	p.Shutdown = cmp.Or(p.Shutdown, defaultPoolShutdown)
	if !p.OTP && p.Backoff == (supervisor.Backoff{}) {
		p.Backoff = poolBackoff
	}
	p.MaxDraining = cmp.Or(p.MaxDraining, 2*p.Size+1)
	p.Recycle = p.Recycle.complete()
	switch {
	case p.StopFirst:
		p.MaxSurge, p.MaxUnavailable = -1, cmp.Or(p.MaxUnavailable, 1)
	default:
		p.MaxSurge = cmp.Or(p.MaxSurge, 1)
	}
	return p
}

// persists tells whether the pool goes on over its budget while its workers show that
// they can live. A budget of none says that the first failure is its supervisor's.
func (p Pool) persists() bool {
	return !p.OTP && p.Strategy == supervisor.OneForOne && p.Intensity.Max > 0
}

// rules is what internal/pool needs to know of a complete p.
func (p Pool) rules() pool.Config {
	return pool.Config{
		Surge: max(p.MaxSurge, 0), Unavailable: p.MaxUnavailable, Spares: p.Spares,
		Draining: p.MaxDraining, Recycling: p.Recycle.Max, RemovalOrder: pool.RemovalOrder(p.Cull),
		Retry: spareRetry, MaxRetry: maxSpareRetry, KillRetries: p.mayBeStruck(),
	}
}

// maxStruck is how often a worker that is on its way to a slot is started again, when it
// is killed from outside, before the slot's start has failed.
const maxStruck = 5

func (p Pool) mayBeStruck() int {
	if p.OTP {
		return 0
	}
	return maxStruck
}

// crews are the pools that run, and the listener process.
type crews struct {
	mu    sync.Mutex
	all   []*crew        // in the order of their start
	sizes map[string]int // of pools that were scaled, by path
	came  chan struct{}  // closed when the next starts; nil when nobody waits
}

// next returns a channel that is closed when another crew starts.
func (cs *crews) next() <-chan struct{} {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.came == nil {
		cs.came = make(chan struct{})
	}
	return cs.came
}

// enlist takes note of a pool that starts, and returns its size. It begins with the
// generation of now: one that a reload has not seen in the list has seen its end.
func (rt *Runtime) enlist(c *crew) int {
	cs := &rt.crews
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.begin(rt.gens.now())
	cs.all = append(cs.all, c)
	if cs.came != nil {
		close(cs.came)
		cs.came = nil
	}
	if n, scaled := cs.sizes[c.path]; scaled && c.role == roleWorker {
		return n
	}
	return c.pool.Size
}

// dismiss forgets a pool that has ended.
func (rt *Runtime) dismiss(c *crew) {
	cs := &rt.crews
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.all = slices.DeleteFunc(cs.all, func(o *crew) bool { return o == c })
}

// list returns the crews that run, the listener process last: it is proved by then
// that what it is to be reloaded with starts.
func (cs *crews) list() []*crew {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	out := slices.Clone(cs.all)
	slices.SortStableFunc(out, func(a, b *crew) int {
		return cmp.Compare(a.last(), b.last())
	})
	return out
}

func (c *crew) last() int {
	if c.role == roleListener {
		return 1
	}
	return 0
}

// sitting is who is in the slot that the supervisor knows by id, or was last; nil when
// nobody ever was.
func (c *crew) sitting(id string) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	for slot, s := range c.seats {
		if c.seatID(slot) == id {
			return s.Info()
		}
	}
	return nil
}

// outside is who runs without a slot, for the snapshot: spares, and those that drain.
func (c *crew) outside() []supervisor.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []supervisor.Node
	for _, m := range c.members {
		p := m.peer
		if p == nil || p.finished() {
			continue
		}
		if s := c.seats[m.slot]; s != nil && s.has(p) {
			continue
		}
		n := supervisor.Node{Path: p.name(), ID: p.name(), Restart: supervisor.Temporary, Status: supervisor.Running, Since: m.begun}
		i := p.info()
		switch {
		case !m.asked.IsZero():
			n.Status, n.Since = supervisor.Stopping, m.asked
			i.role = roleDraining
		case m.slot == pool.Spare:
			i.role = roleSpare
			if !m.warm {
				n.Status = supervisor.Starting
			}
		case !m.seated:
			n.Status = supervisor.Starting
			i.role = roleCandidate
		}
		n.Info = i
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b supervisor.Node) int {
		return cmp.Compare(a.Info.(info).id, b.Info.(info).id)
	})
	return nodes
}

// finished tells whether the child has ended.
func (p *peer) finished() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}
