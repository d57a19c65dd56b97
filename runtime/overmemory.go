package coppice

import (
	"log/slog"
	"time"
)

// overMemory is a worker that is over a limit of Recycle.
type overMemory struct {
	name          string
	memory, limit int64
	age           time.Duration
}

// memoryHint is what to do about a memory limit that workers exceed soon after their start.
const memoryHint = "set it above what a worker takes when it has started, or to 0"

// youngWorker is the age up to which a worker that exceeds HardMemory is taken for a sign that the
// limit is too low.
const youngWorker = 10 * time.Second

// logHeld logs that a worker is over SoftMemory so soon after its start, like the one before it,
// that it is replaced only after wait; it is the pool's n-th.
func (o overMemory) logHeld(log *slog.Logger, wait time.Duration, n uint64) {
	log.Warn("a fresh worker is over Recycle.SoftMemory, like the one before it: it is replaced later",
		"name", o.name, "memory", o.memory, "limit", o.limit, "wait", wait.Round(time.Millisecond).String(), "times", n, "hint", memoryHint)
}

// logKilled logs that a worker is killed for HardMemory.
func (o overMemory) logKilled(log *slog.Logger) {
	args := []any{"name", o.name, "memory", o.memory, "limit", o.limit, "age", o.age.Round(time.Millisecond).String()}
	if o.age < youngWorker {
		args = append(args, "hint", memoryHint)
	}
	log.Warn("a worker is over Recycle.HardMemory: it is killed", args...)
}
