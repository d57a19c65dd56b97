package coppice

import (
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// stopSignalDelay is how long the master waits after a child was told to end by a signal. A signal
// that is sent to all processes reaches the master too by then, and the child ends with the tree.
const stopSignalDelay = 250 * time.Millisecond

// onStopSignal is called once, when a signal from outside has told w to end.
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

// stopForSignal ends a worker that an operator has told to end: it is replaced as one that is due,
// which is no failure. A worker that is not Permanent drains, and is not replaced. When the worker
// before it in its slot was told so within the pool's period, it is no operator but perhaps the worker
// itself: it ends, and its restart counts, as it always does by OTP's rules.
func (c *poolDriver) stopForSignal(w *poolWorker) {
	if c.pool.Restart == supervisor.Permanent && !c.pool.OTP && !c.signalledAgain(w) {
		c.markDue(w, "signal")
		return
	}
	w.Stop()
	w.unlessEnded(c.pool.Shutdown, w.Kill)
}

// signalledAgain reports whether a worker of w's slot was told to end less than the pool's period ago.
func (c *poolDriver) signalledAgain(w *poolWorker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot, now := c.slotLocked(w.slot), time.Now()
	last := slot.signalledAt
	slot.signalledAt = now
	return now.Sub(last) < c.pool.Intensity.Period
}
