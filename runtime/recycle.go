package coppice

import (
	"cmp"
	"time"
)

// Recycle replaces workers that have done their share, against slow leaks. The new worker is ready
// before the old worker drains; with Rollout.StopFirst the old worker has ended before the new one
// is started. A worker that has done its share may also return nil: it is replaced at once, and
// that is no restart. The zero value recycles no worker.
//
// So that workers that were started together are not replaced together, each slot has its own
// limits: up to Jitter below the limits that are set here, spread evenly over the slots with a gap
// between any two.
type Recycle struct {
	// SoftMemory is the memory of its own, in bytes, above which a worker is replaced. HardMemory
	// is that above which it is killed, which is a failure like any other. Both apply to processes
	// only, and are checked every Every (zero = 1 s).
	//
	// Its own are the anonymous memory of the process (heap, stacks, what C allocates), its share
	// of the memory that it shares with others (shared memory, tmpfs), and what of both is swapped
	// out; not the program and the files that it maps, which all workers share and the kernel can
	// drop, and not the processes that it has started. A limit for all processes of the pool, page
	// cache included, is memory.max of Environment.Cgroup; one that the kernel keeps for each
	// worker and what it has started is Environment.Resources.MemoryMax.
	//
	// A SoftMemory that a fresh worker exceeds recycles for ever: a worker that is over it within
	// 10 s, like the one before it in its slot, is replaced when it has lived for 10 s, the next
	// for 20 s, and so on up to 1 h; a warning in the log says so.
	SoftMemory, HardMemory int64
	Every                  time.Duration

	// Requests is how many requests a worker answers before it is replaced. Worker.Serve counts
	// those of an *http.Server, Worker.CountRequests any others.
	Requests int64

	// Age is how long a worker may have its slot before it is replaced.
	Age time.Duration

	// Jitter is the fraction of Requests, Age and SoftMemory by which a slot's own limit may be
	// lower: 0.01 to 0.9; zero = 0.2. There is always some.
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
