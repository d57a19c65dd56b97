package coppice

import (
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// stopSignalDelay is how long the master waits whether a signal that a child got has been for
// all: the master gets it too then, and the child ends with the tree.
const stopSignalDelay = 250 * time.Millisecond

// onStopSignal is called when a signal from outside has told w to end, once. A worker that the
// master has asked to end is ending.
func (c *poolDriver) onStopSignal(w *poolWorker, signal string) {
	w.unlessEnded(stopSignalDelay, func() {
		if c.ending() || w.askedStop.Load() {
			return
		}
		c.log.Info("a signal from outside tells a child to end", "name", w.name(), "id", w.hello.ID, "signal", signal)
		c.mu.Lock()
		w.stopSignalled = true
		early := !w.hadSlot && w.slot != pool.Spare // occupySlot comes to it
		c.mu.Unlock()
		if !early {
			c.stopForSignal(w)
		}
	})
}

// stopForSignal ends a worker because an operator said so: as if it were due, which is no
// failure; one that no restart would follow drains, and nobody takes its place. A worker that is told
// so soon after the one before it in its slot is no operator's affair: it may tell itself. It ends, and
// what follows counts, as it always does by OTP's rules.
func (c *poolDriver) stopForSignal(w *poolWorker) {
	if c.pool.Restart == supervisor.Permanent && !c.pool.OTP && !c.signalledAgain(w) {
		c.markDue(w, "signal")
		return
	}
	w.Stop()
	w.unlessEnded(c.pool.Shutdown, w.Kill)
}

// signalledAgain reports whether a worker of w's slot was told to end within the pool's period before.
func (c *poolDriver) signalledAgain(w *poolWorker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot, now := c.slotLocked(w.slot), time.Now()
	last := slot.signalledAt
	slot.signalledAt = now
	return now.Sub(last) < c.pool.Intensity.Period
}
