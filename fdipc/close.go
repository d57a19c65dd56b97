package fdipc

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// PeerGone is the owner's word that the peer process has ended and was reaped. What the peer has
// sent is still handled; then the Conn ends, though another process may still have the peer's
// sockets open.
func (c *Conn) PeerGone() { c.control.drain() }

// Close ends the Conn. What is queued is still sent as long as the peer takes it without delay;
// handles that were not claimed come back through Resolved. Close does not wait for callbacks
// that run, so it may be called from one: [Conn.Done] waits for them. A Conn that is suspended ends
// when it is resumed, without sending more. It returns nil.
func (c *Conn) Close() error {
	c.mu.Lock()
	talk := c.err == nil && c.ready
	c.mu.Unlock()
	if talk {
		for _, l := range c.lanes {
			l.refuse()
		}
		ctx, cancel := context.WithTimeout(context.Background(), closeLinger)
		defer cancel()
		if c.lanes[Data].flush(ctx) {
			c.mu.Lock()
			c.leaving = true
			c.mu.Unlock()
			c.transport(kindGoodbye, 0)
			c.lanes[Control].flush(ctx)
		}
	}
	c.fail(ErrClosed)
	return nil
}

// closeLinger is how long Close lets the peer take what is queued.
const closeLinger = 100 * time.Millisecond

// addEndpoint notes an endpoint that fail has to close. If the Conn has ended it closes e at once.
func (c *Conn) addEndpoint(e endpoint) bool {
	c.mu.Lock()
	open := c.err == nil
	if open {
		c.endpoints = append(c.endpoints, e)
		if c.pauses.gate != nil {
			e.pause(true, false)
		}
	}
	c.mu.Unlock()
	if !open {
		e.close()
	}
	return open
}

// fail ends the Conn, for the first reason that comes.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.pauses.suspended {
		c.pauses.end = cmp.Or(c.pauses.end, err)
	}
	if c.err != nil || c.pauses.suspended {
		c.mu.Unlock()
		return
	}
	c.err = err
	endpoints := c.endpoints
	c.mu.Unlock()
	c.hsTimer.Stop()
	for _, l := range c.lanes {
		l.fail(err)
	}
	c.ended.Store(true)
	close(c.ending)
	for _, e := range endpoints {
		if c.memory {
			e.close()
		} else {
			e.stop() // finish closes it, for that may take its time
		}
	}
	go c.finish(err, endpoints) // ends when the readers and writers have, and the last callback
}

// finish waits for the goroutines and gives the last calls.
func (c *Conn) finish(err error, endpoints []endpoint) {
	c.offers.close() // first: not to be held up by a Handler that blocks
	c.wg.Wait()
	c.closeEnds(endpoints)
	c.standIn.close() // senders may have used it until here
	c.discard(c.peerTable)
	close(c.done)
	if c.cfg.Closed != nil {
		c.cfg.Closed(c, err)
	}
}

// closeEnds closes the Conn's sockets. What the peer has put into them is closed with them, which
// may take long: closeEnds waits no longer than closeLinger.
func (c *Conn) closeEnds(ends []endpoint) {
	closed := make(chan struct{})
	go func() { // ends when what is queued lets it
		for _, e := range ends {
			_ = e.close()
		}
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(closeLinger):
	}
}

// sendFailed is called with an error of sending. If the peer has closed, what it sent before is
// still read, and the end of the control lane ends the Conn.
func (c *Conn) sendFailed(err error) {
	if !errors.Is(err, ErrPeerLost) {
		c.fail(err)
		return
	}
	for _, l := range c.lanes {
		l.fail(err)
	}
	c.control.drain()
}
