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
	spareRetry          = time.Second // first wait after a spare or a recycling has failed
	maxSpareRetry       = time.Minute
)

// poolIntensity is for workers that are killed from outside and replaced in milliseconds; OTP's 1
// in 5 s is for the actors of one process.
var poolIntensity = supervisor.Intensity{Max: 10, Period: 10 * time.Second}

// poolBackoff spaces starts that fail, and restarts over the budget: long enough for the machine,
// and no longer than a client in the backlog can wait.
var poolBackoff = supervisor.Backoff{Initial: 50 * time.Millisecond, Max: time.Second, AtOnce: true}

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
	p.Recycle = p.Recycle.complete()
	p.Rollout = p.Rollout.complete(p.Size)
	return p
}

// persists reports whether the pool goes on over its budget while its workers show that they can
// live. With a budget of none its supervisor handles the first failure.
func (p Pool) persists() bool {
	return !p.OTP && p.Strategy == supervisor.OneForOne && p.Intensity.Max > 0
}

// rules returns the part of p that internal/pool needs; p must be complete.
func (p Pool) rules() pool.Config {
	return pool.Config{
		Surge: max(p.Rollout.Surge, 0), Unavailable: p.Rollout.Unavailable, Spares: p.Spares,
		Draining: p.Rollout.MaxDraining, Recycling: p.Recycle.Max, RemovalOrder: pool.RemovalOrder(p.ScaleDown),
		Retry: spareRetry, MaxRetry: maxSpareRetry, KillRetries: p.killRetries(),
	}
}

// maxKilledStarts is how often a start is tried again when its worker is killed from outside.
const maxKilledStarts = 5

func (p Pool) killRetries() int {
	if p.OTP {
		return 0
	}
	return maxKilledStarts
}

// pools are the running pools, and the listener process.
type pools struct {
	generations *generations

	mu    sync.Mutex
	all   []*poolDriver  // in the order of their start
	sizes map[string]int // of pools that were scaled, by path
	added chan struct{}  // closed when the next pool starts; nil when nothing waits for it
}

// next returns a channel that is closed when another pool starts.
func (cs *pools) next() <-chan struct{} {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.added == nil {
		cs.added = make(chan struct{})
	}
	return cs.added
}

// add registers a pool that starts, and returns its size. The pool starts with the current
// generation: a pool that a running reload did not list starts with the result of that reload.
func (cs *pools) add(c *poolDriver) int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c.begin(cs.generations.now())
	cs.all = append(cs.all, c)
	if cs.added != nil {
		close(cs.added)
		cs.added = nil
	}
	return cs.sizeLocked(c)
}

// remove removes a pool that has ended.
func (cs *pools) remove(c *poolDriver) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.all = slices.DeleteFunc(cs.all, func(o *poolDriver) bool { return o == c })
}

// list returns the drivers of the pools. That of the listener process is last: by then a reload has
// shown that the new program starts.
func (cs *pools) list() []*poolDriver {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	out := slices.Clone(cs.all)
	slices.SortStableFunc(out, func(a, b *poolDriver) int {
		switch {
		case a.kind.ofConfig == b.kind.ofConfig:
			return 0
		case a.kind.ofConfig:
			return -1
		}
		return 1
	})
	return out
}

// occupant returns the info of the present or last worker of the slot with an id; nil if it has
// never had a worker.
func (c *poolDriver) occupant(id string) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	for slot, s := range c.slots {
		if s.worker != nil && c.slotID(slot) == id {
			return s.worker.info()
		}
	}
	return nil
}

// unslotted returns the workers without a slot, for the snapshot: spares, candidates for a slot,
// and workers that drain.
func (c *poolDriver) unslotted() []supervisor.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []supervisor.Node
	for _, w := range c.workers {
		if !w.launched || w.finished() || c.slots[w.slot].occupant() == w {
			continue
		}
		n := supervisor.Node{Path: w.name(), ID: w.name(), Restart: supervisor.Temporary, Status: supervisor.Running, Since: w.startedAt}
		i := w.info()
		switch {
		case !w.drainAsked.IsZero():
			n.Status, n.Since = supervisor.Stopping, w.drainAsked
			i.role = roleDraining
		case w.slot == pool.Spare:
			i.role = roleSpare
			if !isClosed(w.standby) {
				n.Status = supervisor.Starting
			}
		case !w.hadSlot:
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
