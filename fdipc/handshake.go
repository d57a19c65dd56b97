package fdipc

import (
	"errors"
	"fmt"
)

// start sends the hello over e and starts the goroutines. It takes ownership of e.
func (c *Conn) start(e endpoint) (err error) {
	c.memory = e.fd() < 0
	defer func() {
		if err != nil {
			c.standIn.close()
		}
	}()
	c.setControl(e)
	h := hello{
		minVersion: version, maxVersion: version, knows: featAll, attached: featAttached,
		maxFrame: uint32(c.cfg.MaxFrame), credits: uint32(c.cfg.Credits),
	}
	p := newPacket()
	defer p.free()
	table, a, err := e.newTable(c.cfg.Credits)
	if err != nil {
		e.close()
		return err
	}
	c.table = table
	if !c.memory {
		c.standIn = a
	}
	data, remote, err := e.pair()
	if err != nil {
		e.close()
		return err
	}
	defer remote.close()
	c.dataOut = data
	c.addEndpoint(data)
	p.attachments = append(p.attachments, a, remote)
	p.buf = p.buf[:pieceHead]
	for range p.attachments {
		p.buf = appendEntry(p.buf, &handleEntry{})
	}
	p.buf = h.append(p.buf)
	putPieceHeader(p.buf, pieceHeader{n: helloLen, kind: kindHello, handles: len(p.attachments)})
	p.frames = 1
	if err := e.try(p); err != nil && !errors.Is(err, ErrPeerLost) {
		for _, e := range c.endpoints {
			e.close()
		}
		return err
	} // else the reader will find out
	c.receivers[Control].hello = c.handshake
	c.run(Control, c.readControl)
	return nil
}

// setControl sets the endpoint of the control lane. Until the handshake is over it is that of both.
func (c *Conn) setControl(e endpoint) {
	c.control = e
	c.addEndpoint(e)
	for _, l := range c.lanes {
		l.endpoint = e
	}
	c.receivers[Control].endpoint = e
}

// setData sets the endpoints of the data lane, of which peer is the one to read. It reports whether
// the Conn has not ended.
func (c *Conn) setData(peer endpoint) bool {
	c.data = peer
	c.receivers[Data].endpoint = peer
	c.lanes[Data].endpoint = c.dataOut
	return c.addEndpoint(peer)
}

var errReaderExited = errors.New("fdipc: a frame's handler has called runtime.Goexit")

// run starts the goroutines of a lane. The Conn owns them: they end when fail closes the endpoints.
func (c *Conn) run(l Lane, read func()) {
	if d := c.cfg.HandshakeTimeout; d > 0 && c.receivers[l].hello != nil {
		c.hsTimer.Reset(d)
	}
	c.mu.Lock()
	c.pauses.reading++
	c.mu.Unlock()
	c.wg.Go(c.lanes[l].write)
	c.wg.Go(func() {
		ended := false
		defer func() {
			if !ended { // a handler has called runtime.Goexit: the channel has no reader any more
				c.fail(errReaderExited)
			}
			c.readerEnded()
		}()
		read()
		ended = true
	})
}

// handshake works on the peer's hello.
func (c *Conn) handshake(p *piece, attached []attachment) error {
	h, err := decodeHello(p.payload)
	if err != nil {
		return err
	}
	if h.minVersion > version || h.maxVersion < version {
		return fmt.Errorf("%w: peer speaks %d to %d, this side %d", ErrVersion, h.minVersion, h.maxVersion, version)
	}
	if missing := featAll&^h.knows | featAttached&^h.attached; missing != 0 {
		return fmt.Errorf("%w: %v", ErrFeature, missing)
	}
	next := 0
	var data endpoint
	for f := features(1); f != 0 && f <= h.attached; f <<= 1 {
		if h.attached&f == 0 {
			continue
		}
		if next == len(attached) {
			return wireError("hello without its descriptors")
		}
		g := attached[next]
		attached[next] = noAttachment
		next++
		switch f {
		case featTable:
			if c.peer, err = c.control.adoptTable(g); err == nil && c.cfg.Suspendable {
				c.peerTable = g
			} else {
				c.discard(g)
			}
		case featData:
			if err = c.checkDataLane(g); err != nil {
				c.discard(g)
				return err
			}
			data, err = c.control.adopt(g)
		default: // of a later version
			c.discard(g)
		}
		if err != nil {
			return err
		}
	}
	c.maxFrame.Store(min(c.maxFrame.Load(), int64(h.maxFrame)))
	c.offers.open(c.table, max(1, min(c.cfg.Credits, int(min(h.credits, maxCredits)))))
	if !c.setData(data) {
		return ErrClosed
	}
	c.hsTimer.Stop()
	c.mu.Lock()
	c.ready = true
	c.mu.Unlock()
	if c.cfg.Ready != nil {
		c.cfg.Ready(c)
	}
	c.run(Data, c.readData)
	for _, l := range c.lanes {
		l.wakeWriter()
	}
	return nil
}

// checkDataLane returns an error unless g can be the peer's data lane. It comes before the
// runtime's poller gets g: the poller asks the descriptor by a raw call, and a file of the peer's
// may keep that waiting.
func (c *Conn) checkDataLane(g attachment) error {
	if c.memory {
		return nil
	}
	if k := detectKind(g.fd); k != HandleUnixPacket {
		return wireError("a data lane that is a descriptor of kind %v", k)
	}
	return nil
}
