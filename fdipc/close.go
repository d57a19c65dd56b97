package fdipc

import (
	"context"
	"errors"
	"io"
	"time"
)

// PeerGone is the owner's word that the peer process has ended and was reaped. What it had not
// claimed comes back even if it never had a claim table. The Conn ends if it has not yet.
func (c *Conn) PeerGone() {
	c.goneOne.Do(func() { close(c.gone) })
	c.mu.Lock()
	over := c.readOver
	c.mu.Unlock()
	if over {
		c.fail(ErrPeerLost)
	}
	c.control.drain()
}

// CloseWrite sends what is queued, says goodbye and closes the writing half. It
// blocks until the kernel has taken everything or the Conn ends. Receiving goes on.
func (c *Conn) CloseWrite() error {
	c.mu.Lock()
	ready := c.ready
	c.mu.Unlock()
	if !ready {
		return c.Close()
	}
	for _, l := range c.lanes {
		l.refuse()
	}
	c.lanes[Data].flush(context.Background())
	c.setGoodbyeErr(io.EOF)
	c.transport(kindGoodbye, goodbyeHalf)
	c.lanes[Control].flush(context.Background())
	for _, l := range c.lanes {
		_ = l.endpoint.closeWrite()
	}
	c.mu.Lock()
	c.wrote = true
	both := c.readOver
	c.mu.Unlock()
	if both {
		c.fail(io.EOF)
	}
	return nil
}

// Close ends the Conn. What is queued is still sent as long as the peer takes it without delay;
// handles nobody claimed come back through Resolved. Close does not wait for callbacks
// that run, so it may be called from one: [Conn.Done] waits for them. It returns nil.
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
			c.setGoodbyeErr(ErrClosed)
			c.transport(kindGoodbye, goodbyeFull)
			c.lanes[Control].flush(ctx)
		}
	}
	c.fail(ErrClosed)
	return nil
}

func (c *Conn) setGoodbyeErr(err error) {
	c.mu.Lock()
	c.goodbyeErr = err
	c.mu.Unlock()
}

// closeLinger is how long Close lets the peer take what is queued.
const closeLinger = 100 * time.Millisecond

// targets of kindGoodbye
const (
	goodbyeFull = 0
	goodbyeHalf = 1 // the writing half only
)

// own notes an end that fail has to close. If the Conn has ended it closes e at once.
func (c *Conn) addEndpoint(e endpoint) bool {
	c.mu.Lock()
	open := c.err == nil
	if open {
		c.endpoints = append(c.endpoints, e)
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
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	ends := c.endpoints
	c.mu.Unlock()
	c.hsTimer.Stop()
	for _, l := range c.lanes {
		l.fail(err)
	}
	last := c.offers.byFrames()
	c.answers = last
	c.ended.Store(true)
	close(c.ending)
	for _, e := range ends {
		if c.memory && !(e == c.control && last) {
			e.close()
			continue
		}
		e.stop() // finish closes it, for that may take its time; claims that are on their way must be read
	}
	go c.finish(err, last, ends) // ends when the readers and writers have, and the last callback
}

// finish waits for the goroutines and gives the last calls.
func (c *Conn) finish(err error, last bool, ends []endpoint) {
	if !last {
		c.offers.close(false) // not to be held up by a Handler that blocks
	}
	c.wg.Wait()
	c.closeEnds(ends)
	c.standIn.close() // senders may have used it until here
	all := c.offers.close(false)
	close(c.done)
	if !all {
		<-c.gone
		c.offers.close(true)
	}
	if c.cfg.Closed != nil {
		c.cfg.Closed(c, err)
	}
}

// closeEnds closes the Conn's sockets. What the peer has put into them is closed with them, and may take its time: that
// is not waited for longer than closeLinger.
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

// broken is told of an error of sending. If it is the peer that has closed, what it sent
// before is still read, and the end of the control lane ends the Conn.
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
