package fdipc

import (
	"errors"
	"io"
)

// readControl is the reader of the control lane. It ends with the Conn, or when the peer closes.
func (c *Conn) readControl(t *table, data end) {
	r := &receiver{c: c, end: c.control}
	r.hello = func(p *piece, g []cargo) error { return c.handshake(p, g, t, data) }
	err := r.run()
	if !errors.Is(err, io.EOF) {
		c.fail(err)
		return
	}
	if r.half {
		c.mu.Lock()
		c.readOver = true
		both := c.wrote
		c.mu.Unlock()
		if both {
			c.fail(io.EOF)
			return
		}
		c.control.hangup() // nothing more comes; that the peer ends still shows
	}
	if !r.goodbye || r.half {
		err = c.lost(r.half)
	}
	for _, l := range c.lanes {
		l.fail(err)
	}
	c.offers.end(false)
	if c.data != nil { // what the peer sent before it went
		c.data.drain()
		select {
		case <-c.dataOver:
		case <-c.dying:
		}
	}
	c.fail(err)
}

// lost says what the end of the control lane means that no goodbye announced.
func (c *Conn) lost(half bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.parting, ErrClosed) || half && c.parting != nil {
		return c.parting
	}
	return ErrPeerLost
}

// readData is the reader of the data lane.
func (c *Conn) readData() {
	defer close(c.dataOver)
	r := &receiver{c: c, end: c.data}
	if err := r.run(); !errors.Is(err, io.EOF) {
		c.fail(err)
	}
}
