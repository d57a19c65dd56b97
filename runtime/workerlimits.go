package coppice

import (
	"math/rand/v2"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// limitOf returns a slot's own limit, from the limit that is set for all slots; 0 stays 0.
func (c *poolDriver) limitOf(limit float64, slot int) float64 {
	return pool.Spread(limit, c.pool.Recycle.Jitter, slot, c.size(), rand.Float64())
}

// requests returns after how many requests the next worker of a slot is due; 0 = never.
func (c *poolDriver) requests(slot int) int64 {
	if c.pool.Recycle.Requests == 0 || slot == pool.Spare {
		return 0
	}
	return max(1, int64(c.limitOf(float64(c.pool.Recycle.Requests), slot)))
}

// watchLimits watches a worker that has its slot, until it is due or ends.
func (c *poolDriver) watchLimits(w *poolWorker) {
	r := c.pool.Recycle
	if r.Age > 0 {
		w.unlessEnded(time.Duration(c.limitOf(float64(r.Age), w.slot)), func() { c.markDue(w, "age") })
	}
	if r.SoftMemory > 0 || r.HardMemory > 0 {
		go c.watchMemory(w) // ends with the worker
	}
}

// markDue makes the rules replace a worker when its turn comes.
func (c *poolDriver) markDue(w *poolWorker, why string) {
	c.note(w.assigned.Load().slot, w.event(PoolEvent{Kind: WorkerDue, Why: why}))
	c.step(pool.Event{Kind: pool.Due, Worker: w.id})
}

func (c *poolDriver) watchMemory(w *poolWorker) {
	r := c.pool.Recycle
	soft := int64(c.limitOf(float64(r.SoftMemory), w.slot))
	tick := time.NewTicker(r.Every)
	defer tick.Stop()
	for {
		select {
		case <-w.backend.exited():
			return
		case <-tick.C:
		}
		rss, ok := residentMemory(w.backend.pid())
		switch {
		case !ok:
		case r.HardMemory > 0 && rss > r.HardMemory:
			w.killFor(KilledMemory)
			return
		case soft > 0 && rss > soft:
			c.markDue(w, "memory")
			soft = 0
			if r.HardMemory == 0 {
				return
			}
		}
	}
}
