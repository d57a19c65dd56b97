package coppice

import (
	"math/rand/v2"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// limitOf returns a slot's own limit in a pool of size slots, from the limit that is set for all; 0
// stays 0.
func (r Recycle) limitOf(limit float64, slot, size int) float64 {
	return pool.Spread(limit, r.Jitter, slot, size, rand.Float64())
}

// requestLimit returns after how many requests the next worker of a slot is due; 0 = never.
func (r Recycle) requestLimit(slot, size int) int64 {
	if r.Requests == 0 || slot == pool.Spare {
		return 0
	}
	return max(1, int64(r.limitOf(float64(r.Requests), slot, size)))
}

// watches reports whether there are limits that the master watches.
func (r Recycle) watches() bool { return r.Age > 0 || r.SoftMemory > 0 || r.HardMemory > 0 }

// limitWatch watches a worker that has its slot, until it is due or ends.
type limitWatch struct {
	*workerStop
	recycle    Recycle
	slot, size int                               // the worker's slot, and how many there are
	due        func(limit string, reached int64) // makes the rules replace the worker when its turn comes
	over       func(memory int64)                // reports that the worker is killed for its memory
}

func (l limitWatch) begin() {
	if l.recycle.Age > 0 {
		l.unlessEnded(time.Duration(l.limit(float64(l.recycle.Age))), func() { l.due("age", 0) })
	}
	if l.recycle.SoftMemory > 0 || l.recycle.HardMemory > 0 {
		go l.watchMemory() // ends with the worker
	}
}

func (l limitWatch) limit(limit float64) float64 { return l.recycle.limitOf(limit, l.slot, l.size) }

func (l limitWatch) watchMemory() {
	r := l.recycle
	soft := int64(l.limit(float64(r.SoftMemory)))
	tick := time.NewTicker(r.Every)
	defer tick.Stop()
	for {
		select {
		case <-l.backend.exited():
			return
		case <-tick.C:
		}
		limit := soft
		if soft == 0 {
			limit = r.HardMemory
		}
		memory, ok := ownMemory(l.backend.pid(), limit)
		switch {
		case !ok:
		case r.HardMemory > 0 && memory > r.HardMemory:
			l.over(memory)
			l.killFor(KilledMemory)
			return
		case soft > 0 && memory > soft:
			l.due("memory", memory)
			soft = 0
			if r.HardMemory == 0 {
				return
			}
		}
	}
}
