package listen

import (
	"sync"
	"time"
)

// closeGrace is how long a worker must live on after a close for it to be one.
const closeGrace = 250 * time.Millisecond

// pendingCloses are the sockets that a worker has closed, and of which the master does not know
// yet. A worker that fails closes what it has an instant before its end, by the deferred
// calls of its function: that is part of its death, and a death is not a close. Told of it
// the master would give up the socket of a pool's last worker, and clients would be refused
// until the replacement listens. So a close is told when the worker has lived on for closeGrace, or at
// once when it is to stop; and before any further request, which may be for the
// same socket.
type pendingCloses struct {
	send func(number uint64) // does not block

	mu      sync.Mutex // held while they are told: in their order, and before what is sent next
	unsent  []uint64
	timer   *time.Timer // armed while there are any
	failing bool        // no more is told
}

// add takes note of a close, which now has told at once.
func (c *pendingCloses) add(number uint64, now bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failing {
		return
	}
	c.unsent = append(c.unsent, number)
	switch {
	case now:
		c.flushLocked()
	case c.timer == nil:
		c.timer = time.AfterFunc(closeGrace, c.flush) // bounded, and flush or fail stop it
	}
}

// flush tells what is not told yet. The latest of several has waited for less than closeGrace.
func (c *pendingCloses) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
}

func (c *pendingCloses) flushLocked() {
	for _, number := range c.unsent {
		c.send(number)
	}
	c.clearLocked()
}

// fail drops what is not told, and what comes.
func (c *pendingCloses) fail() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing = true
	c.clearLocked()
}

func (c *pendingCloses) clearLocked() {
	c.unsent = nil
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}
