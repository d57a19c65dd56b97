package listen

import (
	"sync"
	"time"
)

// closeGrace is how long a worker must live after a close for the close to count.
const closeGrace = 250 * time.Millisecond

// pendingCloses are the sockets that a worker has closed and has not reported to the master yet. A
// worker that fails closes its sockets an instant before its end, by the deferred calls of its
// function. Such a close is part of its death, and a death is not a close. If the master knew of
// it, it would close the socket of a pool's last worker, and clients would be refused until the
// replacement listens. So the worker reports a close when it has lived on for closeGrace, or at
// once if it was asked to stop. It also reports all closes before any further request, which may be
// for the same socket.
type pendingCloses struct {
	send func(number uint64) // does not block

	mu      sync.Mutex // held while closes are sent, to keep their order, also with the next request
	unsent  []uint64
	timer   *time.Timer // armed while unsent is not empty
	failing bool        // no more closes are reported
}

// add adds a close. If now is set, it is sent at once.
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

// flush sends all closes. Of several, the later ones have waited for less than closeGrace.
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

// fail drops the closes that are not sent, and all later ones.
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
