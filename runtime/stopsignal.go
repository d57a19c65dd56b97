package coppice

import (
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// stopSignalDelay is how long the master waits after a signal asked a child to end. A signal to all
// processes reaches the master too within that time, and the child ends with the tree.
const stopSignalDelay = 250 * time.Millisecond

// onStopSignal is called once, when a signal from outside has asked w to end.
func (c *poolDriver) onStopSignal(w *poolWorker, signal string) {
	w.unlessEnded(stopSignalDelay, func() {
		if c.ending() || w.askedStop.Load() {
			return
		}
		c.log.Info("a signal from outside tells a child to end", "name", w.name(), "id", w.hello.ID, "signal", signal)
		c.mu.Lock()
		w.stopSignalled = true
		early := !w.hadSlot && w.slot != pool.Spare // occupySlot handles it
		c.mu.Unlock()
		if !early {
			c.stopForSignal(w)
		}
	})
}

// stopForSignal ends a worker that an operator's signal asked to end. The worker is replaced like
// one that is due for recycling, which is no failure. A worker that is not Permanent drains and is
// not replaced. If the slot's previous worker was asked to end by a signal within the pool's
// period, the sender may be the worker itself and not an operator: then the worker ends, and its
// restart counts, as it always does by OTP's rules.
func (c *poolDriver) stopForSignal(w *poolWorker) {
	if c.replacesStopped() && !c.signalledAgain(w) {
		c.markDue(w, "signal")
		return
	}
	c.stopForGood(w)
}

// replacesStopped reports whether a worker that is asked to end from outside is replaced as one
// that is due for recycling.
func (c *poolDriver) replacesStopped() bool {
	return c.pool.Restart == supervisor.Permanent && !c.pool.OTP
}

// stopForGood asks a worker to end, and kills it when its time is over.
func (c *poolDriver) stopForGood(w *poolWorker) {
	w.Stop()
	w.unlessEnded(c.pool.Shutdown, w.Kill)
}

// signalledAgain reports whether a signal asked a worker of w's slot to end less than the pool's
// period ago.
func (c *poolDriver) signalledAgain(w *poolWorker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot, now := c.slotLocked(w.slot), time.Now()
	last := slot.signalledAt
	slot.signalledAt = now
	return now.Sub(last) < c.pool.Intensity.Period
}
