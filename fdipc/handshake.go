package fdipc

import (
	"errors"
	"fmt"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

// start sends the hello over e and starts the goroutines. It takes ownership of e.
func (c *Conn) start(e endpoint) (err error) {
	c.control = e
	_, c.memory = e.(*memEnd)
	c.standIn = noAttachment
	defer func() {
		if err != nil {
			c.standIn.close()
		}
	}()
	c.addEndpoint(e)
	c.lanes[Control].endpoint = e
	c.lanes[Data].endpoint = e
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
	if !c.memory {
		c.standIn = a
	}
	data, remote, err := e.pair()
	if err != nil {
		e.close()
		return err
	}
	defer remote.close()
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
	if d := c.cfg.HandshakeTimeout; d > 0 {
		c.hsTimer.Reset(d)
	}
	// Owned by the Conn: they end when fail closes the endpoints.
	c.wg.Go(c.lanes[Control].write)
	c.wg.Go(func() { c.readControl(table, data) })
	return nil
}

// handshake works on the peer's hello. table and data are what our own hello offered.
func (c *Conn) handshake(p *piece, attached []attachment, t *claims.Table, data endpoint) error {
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
			c.peer, err = c.control.adoptTable(g)
			c.discard(g)
		case featData:
			if err = c.checkDataLane(g); err != nil {
				c.discard(g)
				return err
			}
			c.data, err = c.control.adopt(g)
		default: // of a later version
			c.discard(g)
		}
		if err != nil {
			return err
		}
	}
	c.maxFrame.Store(min(c.maxFrame.Load(), int64(h.maxFrame)))
	c.offers.open(t, max(1, min(c.cfg.Credits, int(min(h.credits, maxCredits)))))
	c.lanes[Data].endpoint = data
	if !c.addEndpoint(c.data) {
		return ErrClosed
	}
	c.hsTimer.Stop()
	c.mu.Lock()
	c.ready = true
	c.mu.Unlock()
	if c.cfg.Ready != nil {
		c.cfg.Ready(c)
	}
	// Owned by the Conn, as those of start.
	c.wg.Go(c.lanes[Data].write)
	c.wg.Go(c.readData)
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
