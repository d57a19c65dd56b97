package fdipc

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// readControl is the reader of the control lane. It ends with the Conn, or when the peer closes.
func (c *Conn) readControl() {
	r := c.receivers[Control]
	err := r.run()
	if !errors.Is(err, io.EOF) {
		c.fail(err)
		return
	}
	if !r.goodbye {
		err = c.endErr()
	}
	for _, l := range c.lanes {
		l.fail(err)
	}
	c.offers.close()
	if c.data != nil { // what the peer sent before it went
		c.data.drain()
		c.readerIdle(func() {
			select {
			case <-c.dataEnded:
			case <-c.ending:
			}
		})
	}
	c.fail(err)
}

// endErr returns why the Conn ends if the control lane ends without a goodbye.
func (c *Conn) endErr() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leaving {
		return ErrClosed
	}
	return ErrPeerLost
}

// dataGrace is how long a data lane may have ended before control has. A peer that closes, or dies,
// ends control first or at the same moment.
const dataGrace = 250 * time.Millisecond

// readData is the reader of the data lane. If that lane alone ends, because its socket was closed
// or shut down, the Conn ends too: so each side hears of it by its own readers, though it may never
// send.
func (c *Conn) readData() {
	err := c.receivers[Data].run()
	close(c.dataEnded)
	if !errors.Is(err, io.EOF) {
		c.fail(err)
		return
	}
	c.readerIdle(func() {
		select {
		case <-c.ending:
		case <-time.After(dataGrace):
		}
	})
	if !c.control.ended() {
		c.fail(fmt.Errorf("%w: its data lane has ended, and control has not", ErrPeerLost))
	}
}
