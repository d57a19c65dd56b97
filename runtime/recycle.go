package coppice

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// Recycle replaces workers that have done their share, for what leaks slowly: the new
// worker is ready first (or the old one has ended, with Rollout.StopFirst), and then the
// old one drains. The zero value recycles no worker.
//
// So that workers that were started together do not go together, each slot has limits
// of its own: up to Jitter below what is set here, spread evenly over the slots with a
// gap between any two.
type Recycle struct {
	// SoftMemory is the resident memory, in bytes, above which a worker is replaced;
	// HardMemory that above which it is killed, which is a failure like any other.
	// Both are of processes only, looked at every Every (zero = 1 s).
	SoftMemory, HardMemory int64
	Every                  time.Duration

	// Requests is how many requests a worker answers before it is replaced:
	// Worker.Serve counts those of an *http.Server, Worker.CountRequests any others.
	Requests int64

	// Age is how long after it took its slot a worker is replaced.
	Age time.Duration

	// Jitter is the part of Requests, Age and SoftMemory by which a slot's own limit may
	// be lower: 0.01 to 0.9; zero = 0.2. There is always some.
	Jitter float64

	// Max is how many workers of the pool are recycled at once, at most; zero = 1.
	Max int
}

func (r Recycle) complete() Recycle {
	r.Every = cmp.Or(r.Every, time.Second)
	r.Jitter = cmp.Or(r.Jitter, 0.2)
	r.Max = cmp.Or(r.Max, 1)
	return r
}

func (r Recycle) validate(bad reportInvalid, path string) {
	if r.SoftMemory < 0 {
		bad(path, "Recycle.SoftMemory", r.SoftMemory, "is negative")
	}
	if r.HardMemory < 0 {
		bad(path, "Recycle.HardMemory", r.HardMemory, "is negative")
	}
	if r.HardMemory > 0 && r.SoftMemory > r.HardMemory {
		bad(path, "Recycle.SoftMemory", r.SoftMemory, "is above HardMemory")
	}
	notNegative(bad, path, "Recycle.Every", r.Every)
	if r.Requests < 0 {
		bad(path, "Recycle.Requests", r.Requests, "is negative")
	}
	notNegative(bad, path, "Recycle.Age", r.Age)
	if r.Jitter != 0 && (r.Jitter < 0.01 || r.Jitter > 0.9) {
		bad(path, "Recycle.Jitter", r.Jitter, "is not between 0.01 and 0.9")
	}
	if r.Max < 0 {
		bad(path, "Recycle.Max", r.Max, "is negative")
	}
}

// limitOf returns a slot's own limit, from the one that is set for all; 0 stays 0.
func (c *poolDriver) limitOf(limit float64, slot int) float64 {
	return pool.Spread(limit, c.pool.Recycle.Jitter, slot, c.pools.size(c), rand.Float64())
}

// requests returns after how many requests the next worker of a slot is due; 0: never.
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

// markDue has a worker replaced when its turn comes.
func (c *poolDriver) markDue(w *poolWorker, why string) {
	c.note(w.slot, w.event(PoolEvent{Kind: WorkerDue, Why: why}))
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
