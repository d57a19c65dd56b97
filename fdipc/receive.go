package fdipc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// receiver turns the packets of one end into frames. One goroutine owns it.
type receiver struct {
	c        *Conn
	endpoint endpoint
	hello    func(*piece, []attachment) error // control, before the handshake
	packet   *packet
	piece    piece // being worked on
	frame    Frame
	frames   uint64 // of this packet
	handles  []*Handle
	parts    [lanes]partialFrame
	goodbye  bool
}

// keepPayload is up to which size the memory of a frame that came in pieces is used for the next
// one.
const keepPayload = 256 << 10

// partialFrame is a frame that has not yet arrived whole.
type partialFrame struct {
	active      bool
	first       pieceHeader
	trace       TraceContext
	payload     []byte
	handles     []*Handle
	handleCount int            // handles that came, those that were refused at once too
	lost        uint8          // why its handles must be refused; 0: they need not
	assembly    *assemblyLimit // nil: there was no such frame yet
}

// run receives until the end. It returns io.EOF when the peer closed.
func (r *receiver) run() error {
	r.packet = newPacket()
	defer r.packet.free()
	defer func() {
		for i := range r.parts {
			r.parts[i].drop()
		}
	}()
	for {
		clear(r.packet.attachments)
		r.packet.attachments = r.packet.attachments[:0]
		if err := r.endpoint.recv(r.packet); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				r.c.readerIdle(func() {}) // suspended, or was
				continue
			}
			r.c.discard(r.packet.attachments...) // of a packet that makes no sense
			return err
		}
		if r.c.ended.Load() {
			r.c.discard(r.packet.attachments...)
			return ErrClosed
		}
		if err := r.handlePacket(); err != nil {
			return err
		}
		if len(r.packet.attachments) > 0 {
			r.c.closers.Throttle(r.c.ending)
		}
	}
}

// handlePacket works on one packet. When it returns, each attachment is owned by a handle or
// closed.
func (r *receiver) handlePacket() error {
	c := r.c
	st := &c.stats
	st.packetsReceived.Add(1)
	st.bytesReceived.Add(uint64(len(r.packet.buf)))
	if r.packet.truncated {
		st.truncated.Add(1)
	}
	g, err := r.handlePieces(r.packet.buf, r.packet.attachments)
	c.discard(g...)
	st.framesReceived.Add(r.frames)
	r.frames = 0
	return err
}

// handlePieces works on the pieces in b. It returns the attachments that it has not come to.
func (r *receiver) handlePieces(b []byte, g []attachment) ([]attachment, error) {
	c := r.c
	// The number of descriptors is checked before any is used. Where there are none, each piece is
	// checked when its turn comes.
	n := 0
	p := &r.piece
	bare := len(g) == 0 && !r.packet.truncated && r.hello == nil
	for rest := b; len(rest) > 0 && !bare; n += p.handles {
		var err error
		if rest, err = decodePiece(rest, p); err != nil {
			return g, err
		}
	}
	if r.hello != nil {
		if r.packet.truncated {
			return g, fmt.Errorf("hello: %w", ErrNoFiles)
		}
	}
	if len(g) > n || len(g) < n && !r.packet.truncated {
		return g, wireError("%d descriptors, %d announced", len(g), n)
	}
	if len(b) == 0 {
		return g, wireError("empty packet")
	}
	if bare {
		var err error
		if b, err = r.handleSmall(b); err != nil {
			return nil, err
		}
	}
	for len(b) > 0 {
		var err error
		if b, err = decodePiece(b, p); err != nil {
			return g, err
		}
		if bare && p.handles > 0 {
			return g, wireError("no descriptors, %d announced", p.handles)
		}
		mine := g[:min(p.handles, len(g))]
		g = g[len(mine):]
		if r.hello != nil {
			hello := r.hello
			r.hello = nil
			if p.kind != kindHello || p.bits != 0 {
				err = wireError("kind %#x before hello", p.kind)
			} else {
				err = hello(p, mine)
			}
			c.discard(mine...)
			if err != nil {
				return g, err
			}
			continue
		}
		if err := r.handlePiece(p, mine); err != nil {
			return g, err
		}
	}
	return nil, nil
}

// handleSmall delivers the whole frames without handles and trace context at the head of b, which
// is most of what comes, and returns what follows them. It decides nothing by itself: what it does
// not know it leaves.
func (r *receiver) handleSmall(b []byte) ([]byte, error) {
	c, f := r.c, &r.frame
	lane := Control
	if r.endpoint == c.data {
		lane = Data
	}
	if r.parts[lane].active {
		return b, nil // a frame goes on
	}
	bits := byte(0)
	if lane == Data {
		bits = pieceData
	}
	f.Lane, f.Handles = lane, nil
	f.setTrace(nil)
	for len(b) >= pieceHead && b[5] == bits && b[7] == 0 {
		n := int(binary.LittleEndian.Uint32(b))
		if n > len(b)-pieceHead || n > lane.limit(c.cfg.MaxFrame) {
			break
		}
		f.Kind, f.Flags, f.Target, f.Payload = Kind(b[4]), b[6], binary.LittleEndian.Uint64(b[8:]), b[pieceHead:pieceHead+n:pieceHead+n]
		b = b[pieceHead+n:]
		r.frames++
		if err := r.deliver(f); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// handlePiece works on one piece after the hello. It owns g.
func (r *receiver) handlePiece(p *piece, g []attachment) error {
	c := r.c
	lane := p.lane()
	if (lane == Data) != (r.endpoint == c.data) {
		c.discard(g...)
		return wireError("frame on the wrong lane")
	}
	t := &r.parts[lane]
	f := &r.frame
	if !t.active && p.bits&(pieceMore|pieceCont) == 0 && p.handles == 0 { // as most are
		f.Kind, f.Lane, f.Flags, f.Target, f.Payload, f.Handles = p.kind, lane, p.flags, p.target, p.payload, nil
		f.setTrace(p.trace)
		if limit := lane.limit(c.cfg.MaxFrame); len(p.payload) > limit {
			return wireError("frame of more than %d bytes", limit)
		}
		r.frames++
		return r.deliver(f)
	}
	if (p.bits&pieceCont != 0) != t.active {
		c.discard(g...)
		return wireError("piece out of place")
	}
	if t.active && (p.kind != t.first.kind || p.flags != t.first.flags || p.target != t.first.target) {
		c.discard(g...)
		return wireError("piece of another frame")
	}
	if !t.active {
		t.first, t.trace, t.lost, t.handleCount = p.pieceHeader, TraceContext{}, 0, 0
		copy(t.trace[:], p.trace)
		t.handles = nil
		if p.bits&pieceMore == 0 {
			t.handles = r.handles[:0]
		} else {
			t.begin(c)
		}
	}
	t.active = true
	if limit := lane.limit(c.cfg.MaxFrame); len(t.payload)+len(p.payload) > limit {
		c.discard(g...)
		return wireError("frame of more than %d bytes", limit)
	}
	if p.handles > 0 {
		if err := r.receiveHandles(t, p, g); err != nil {
			return err
		}
	}
	whole := len(t.payload) == 0 && p.bits&pieceMore == 0
	if !whole {
		t.payload = append(t.payload, p.payload...)
	}
	if p.bits&pieceMore != 0 {
		return nil
	}
	*f = Frame{Kind: t.first.kind, Lane: lane, Flags: t.first.flags, Target: t.first.target, Trace: t.trace, Payload: t.payload, Handles: t.handles}
	if whole {
		f.Payload = p.payload
	}
	if t.active, t.handles, t.payload = false, nil, t.payload[:0]; cap(t.payload) > keepPayload {
		t.payload = nil
	}
	t.finish()
	if t.lost != 0 {
		f.Refuse(t.lost)
		if tell := c.cfg.NoFiles; tell != nil && t.lost == ReasonNoFiles && f.Kind >= FirstUserKind && !c.ended.Load() {
			f.Handles = nil
			tell(c, f)
		}
		return nil
	}
	r.frames++
	err := r.deliver(f)
	if cap(f.Handles) > cap(r.handles) {
		r.handles = f.Handles
	}
	clear(r.handles[:cap(r.handles)])
	return err
}

// setTrace sets a borrowed frame's trace context, which is mostly none after none.
func (f *Frame) setTrace(b []byte) {
	if b != nil {
		copy(f.Trace[:], b)
	} else if !f.Trace.none() {
		f.Trace = TraceContext{}
	}
}

// receiveHandles makes handles of the attachments of one piece.
func (r *receiver) receiveHandles(t *partialFrame, p *piece, g []attachment) error {
	c := r.c
	if t.handleCount += p.handles; t.handleCount > c.cfg.Credits {
		c.discard(g...)
		return fmt.Errorf("%w: a frame of more than %d handles, which are its credits", ErrExcess, c.cfg.Credits)
	}
	hs := make([]Handle, p.handles)
	b := p.entries
	for i := range hs {
		var e handleEntry
		b = decodeEntry(b, &e)
		if int(e.slot) >= c.peer.Slots() {
			c.discard(g[min(i, len(g)):]...)
			return wireError("slot %d of %d", e.slot, c.peer.Slots())
		}
		h := &hs[i]
		h.state, h.fd, h.stated, h.name, h.Trace = handleReceived, -1, e.kind, nameOf(e.name), e.trace
		h.from, h.ref = c, offerID{e.slot, e.seq}
		if h.accepted = e.accepted; h.accepted != "" {
			if _, ok := decodeAccepted(h.accepted); !ok {
				c.discard(g[min(i, len(g)):]...)
				return wireError("what was known at accept makes no sense")
			}
		}
		if i < len(g) {
			h.fd, h.v = int32(g[i].fd), g[i].v
		} else {
			t.lost = ReasonNoFiles
		}
		t.handles = append(t.handles, h)
	}
	if c.held.Add(int64(p.handles)) > c.maxHeld && t.lost == 0 {
		t.lost = ReasonOverload
	}
	if t.lost != 0 { // not when the frame is whole, which it may never be
		for i, h := range t.handles {
			h.Refuse(t.lost)
			t.handles[i] = nil
		}
		t.handles = t.handles[:0]
	}
	return nil
}

// heldFactor times Credits is what a receiver holds unclaimed, at most. It is more than one because
// an offer that was revoked still has its descriptor here until the application tries to claim it.
const heldFactor = 4

// fileShare is the part of a process's descriptors that one peer may take up so, unless its credits
// are more.
const fileShare = 8

func maxHeld(credits int) int64 {
	return int64(min(heldFactor*credits, max(credits, maxFiles()/fileShare)))
}

// A frame must be whole within assemblyTicks, of a second each, from its first piece on. Time in
// which this process was stopped itself counts for one tick.
const assemblyTicks = 30

// assemblyLimit ends the Conn if a frame is not whole in time.
type assemblyLimit struct {
	timer *time.Timer
	ticks atomic.Int32 // since the first piece; below 0: no frame is on its way
}

// begin bounds the time in which the frame must become whole.
func (t *partialFrame) begin(c *Conn) {
	if t.assembly == nil {
		a := new(assemblyLimit)
		a.timer = time.AfterFunc(time.Hour, func() { a.tick(c) })
		t.assembly = a
	}
	t.assembly.ticks.Store(0)
	t.assembly.timer.Reset(c.cfg.assemblyTick)
}

// tick is the timer's. It may come late, after the frame's end.
func (a *assemblyLimit) tick(c *Conn) {
	n := a.ticks.Load()
	switch {
	case n < 0 || c.ended.Load() || !a.ticks.CompareAndSwap(n, n+1):
	case n+1 == assemblyTicks:
		c.fail(fmt.Errorf("%w: a frame has not become whole in %v", ErrExcess, assemblyTicks*c.cfg.assemblyTick))
	default:
		a.timer.Reset(c.cfg.assemblyTick)
	}
}

func (t *partialFrame) finish() {
	if t.assembly != nil {
		t.assembly.ticks.Store(-1)
		t.assembly.timer.Stop()
	}
}

// drop gives up a frame that will never be whole.
func (t *partialFrame) drop() {
	t.finish()
	for _, h := range t.handles {
		h.Close()
	}
	*t = partialFrame{}
}

// discard closes attachments that came from the peer.
func (c *Conn) discard(g ...attachment) {
	for _, x := range g {
		if x.fd >= 0 {
			c.closers.Close(x.fd)
		}
	}
}
