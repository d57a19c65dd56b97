package coppice

import (
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// memoryHint is what to do about a memory limit that workers exceed soon after their start.
const memoryHint = "set it above what a worker takes when it has started, or to 0"

// youngWorker is the age up to which a worker that exceeds HardMemory is taken for a sign that the
// limit is too low.
const youngWorker = 10 * time.Second

// recyclingHeld logs that a worker is over its limit so soon after its start, like those before it,
// that it is not replaced yet: the first, the second, the fourth time and so on.
func (c *poolDriver) recyclingHeld(e pool.Effect) {
	c.mu.Lock()
	c.holds++
	times, w := c.holds, c.workers[e.Worker]
	c.mu.Unlock()
	if isPowerOfTwo(times) {
		c.log.Warn("a fresh worker is over Recycle.SoftMemory, like the one before it: it is replaced later",
			"name", w.name(), "memory", w.memory.Load(), "limit", c.pool.Recycle.SoftMemory,
			"wait", (e.At - time.Since(c.began)).Round(time.Millisecond), "times", times, "hint", memoryHint)
	}
}

// overHardMemory logs what a worker takes that is killed for it.
func (c *poolDriver) overHardMemory(w *poolWorker, memory int64) {
	c.mu.Lock()
	age := time.Since(w.startedAt)
	c.mu.Unlock()
	args := []any{"name", w.name(), "memory", memory, "limit", c.pool.Recycle.HardMemory, "age", age.Round(time.Millisecond)}
	if age < youngWorker {
		args = append(args, "hint", memoryHint)
	}
	c.log.Warn("a worker is over Recycle.HardMemory: it is killed", args...)
}
