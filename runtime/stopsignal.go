package coppice

import (
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// stopSignalDelay is how long the master waits whether a signal that a child got has been for
// all: the master gets it too then, and the child ends with the tree.
const stopSignalDelay = 250 * time.Millisecond

// onStopSignal returns what is to be called when a signal from outside has told m to end. The
// first counts. A child that the master has asked to end is ending.
func (c *poolDriver) onStopSignal(m *poolWorker, p *childHandle) func(signal string) {
	var once sync.Once
	return func(signal string) {
		once.Do(func() {
			p.unlessEnded(stopSignalDelay, func() {
				if c.ending() || p.askedStop.Load() {
					return
				}
				c.log.Info("a signal from outside tells a child to end", "name", p.name(), "id", p.hello.ID, "signal", signal)
				c.mu.Lock()
				m.stopSignalled = true
				early := !m.hadSlot && m.slot != pool.Spare // place comes to it
				c.mu.Unlock()
				if !early {
					c.stopForSignal(m)
				}
			})
		})
	}
}

// stopForSignal ends a worker because an operator said so: as if it were due, which is no
// failure; one that no restart would follow drains, and nobody takes its place. A worker that is told
// so soon after the one before it in its slot is no operator's affair: it may tell itself. It ends, and
// what follows counts, as it always does by OTP's rules.
func (c *poolDriver) stopForSignal(m *poolWorker) {
	if c.pool.Restart == supervisor.Permanent && !c.pool.OTP && !c.signalledAgain(m) {
		c.markDue(m, "signal")
		return
	}
	m.child.Stop()
	m.child.unlessEnded(c.pool.Shutdown, m.child.Kill)
}

// signalledAgain reports whether a worker of m's slot was told to end within the pool's period before.
func (c *poolDriver) signalledAgain(m *poolWorker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, now := c.signalledAt[m.slot], time.Now()
	c.signalledAt[m.slot] = now
	return now.Sub(last) < c.pool.Intensity.Period
}
