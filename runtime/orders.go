package coppice

import (
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// orderDelay is how long the master waits whether a signal that a child got has been for
// all: the master gets it too then, and the child ends with the tree.
const orderDelay = 250 * time.Millisecond

// onOrder returns what is to be called when a signal from outside has told m to end. The
// first counts. A child that the master has asked to end is ending.
func (c *crew) onOrder(m *member, p *peer) func(signal string) {
	var once sync.Once
	return func(signal string) {
		once.Do(func() {
			p.unlessEnded(orderDelay, func() {
				if c.rt.ending() || p.askedStop.Load() {
					return
				}
				c.rt.log.Info("a signal from outside tells a child to end", "name", p.name(), "id", p.welcome.ID, "signal", signal)
				c.mu.Lock()
				m.told = true
				early := !m.seated && m.slot != pool.Spare // place comes to it
				c.mu.Unlock()
				if !early {
					c.endByOrder(m)
				}
			})
		})
	}
}

// endByOrder ends a worker because an operator said so: as if it were due, which is no
// failure; one that no restart would follow drains, and nobody takes its place. A worker that is told
// so soon after the one before it in its slot is no operator's affair: it may tell itself. It ends, and
// what follows counts, as it always does by OTP's rules.
func (c *crew) endByOrder(m *member) {
	if c.pool.Restart == supervisor.Permanent && !c.pool.OTP && !c.toldAgain(m) {
		c.due(m, "signal")
		return
	}
	m.peer.Stop()
	m.peer.unlessEnded(c.pool.Shutdown, m.peer.Kill)
}

// toldAgain reports whether a worker of m's slot was told to end within the pool's period before.
func (c *crew) toldAgain(m *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, now := c.tellings[m.slot], time.Now()
	c.tellings[m.slot] = now
	return now.Sub(last) < c.pool.Intensity.Period
}
