package coppice

import (
	"time"

	"github.com/coppice-go/coppice/runtime/internal/canary"
)

// tally adds up what two generations of a pool serve, with what workers that have ended had served
// at their last heartbeat. One goroutine uses it.
type tally struct {
	*poolDriver
	from, to int
	began    time.Time
	workers  map[int]*tallied // by ID
}

// tallied is one worker.
type tallied struct {
	generation  int
	base, last  canary.Figures // when the tally began, or began anew; at its last heartbeat
	known       bool           // it has told figures
	memory, now int64          // when it was first seen, or the tally began anew; now
	since       time.Time      // of memory
}

// newTally begins a tally: what was served before counts only of workers of to.
func (c *poolDriver) newTally(from, to int) *tally {
	t := &tally{poolDriver: c, from: from, to: to, began: time.Now(), workers: map[int]*tallied{}}
	t.sample()
	return t
}

// restart begins the tally anew; without memory, that goes on.
func (t *tally) restart(memory bool) {
	for _, w := range t.workers {
		w.base = w.last
		if memory {
			w.memory, w.since = w.now, time.Now()
		}
	}
}

// sample returns what the generations have served.
func (t *tally) sample() (before, after canary.Side) {
	now := time.Now()
	t.mu.Lock()
	var serving []*poolWorker
	for _, w := range t.poolDriver.workers {
		if w.hadSlot && w.drainAsked.IsZero() && !w.finished() {
			serving = append(serving, w)
		}
	}
	before.Crashes, after.Crashes, before.Time = t.deaths[t.from], t.deaths[t.to], now.Sub(t.generationBegan)
	t.mu.Unlock()
	sides := map[int]*canary.Side{t.from: &before, t.to: &after}
	for _, w := range serving {
		v := t.workers[w.hello.ID]
		memory, _ := usageOf(w.backend.pid())
		if v == nil {
			v = &tallied{generation: w.gen.number, memory: memory.memory, since: now}
			t.workers[w.hello.ID] = v
		}
		v.now = memory.memory
		if f := w.heartbeats.Figures(); f != nil {
			if v.last = *f; !v.known && v.generation == t.from {
				v.base = *f
			}
			v.known = true
		}
		if side := sides[v.generation]; side != nil {
			side.Workers++
			side.Growth += v.now - v.memory
			side.Grew += now.Sub(v.since)
		}
	}
	for _, v := range t.workers {
		if side := sides[v.generation]; side != nil {
			side.Add(v.last, 1)
			side.Add(v.base, -1)
		}
	}
	for _, side := range sides {
		n := max(side.Workers, 1)
		side.Growth, side.Grew = side.Growth/int64(n), side.Grew/time.Duration(n)
	}
	before.Time *= time.Duration(max(before.Workers, 1))
	after.Time = now.Sub(t.began) * time.Duration(max(after.Workers, 1))
	return before, after
}
