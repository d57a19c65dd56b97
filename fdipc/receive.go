package fdipc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// receiver turns the packets of one end into frames. One goroutine owns it.
type receiver struct {
	c       *Conn
	end     end
	hello   func(*piece, []cargo) error // control, before the handshake
	packet  *packet
	now     piece // being worked on
	frame   Frame
	frames  uint64 // of this packet
	handles []*Handle
	parts   [lanes]part
	goodbye bool
	half    bool
}

// part is a frame that has not yet arrived whole.
type part struct {
	active  bool
	first   pieceHeader
	trace   TraceContext
	payload []byte
	handles []*Handle
	lost    uint8 // why its handles must be refused; 0: they need not
}

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
		}
		return
	}
	if !r.goodbye {
		err = ErrPeerLost
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

// readData is the reader of the data lane.
func (c *Conn) readData() {
	defer close(c.dataOver)
	r := &receiver{c: c, end: c.data}
	if err := r.run(); !errors.Is(err, io.EOF) {
		c.fail(err)
	}
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
		if err := r.end.recv(r.packet); err != nil {
			return err
		}
		if err := r.take(); err != nil {
			return err
		}
	}
}

// take works on one packet. All its cargo is owned by a handle or closed when it returns.
func (r *receiver) take() error {
	c := r.c
	st := &c.stats
	st.packetsReceived.Add(1)
	st.bytesReceived.Add(uint64(len(r.packet.buf)))
	if r.packet.cut {
		st.truncated.Add(1)
	}
	g, err := r.pieces(r.packet.buf, r.packet.cargo)
	closeAll(g)
	st.framesReceived.Add(r.frames)
	r.frames = 0
	return err
}

// pieces works on the pieces in b. It returns the cargo it has not come to.
func (r *receiver) pieces(b []byte, g []cargo) ([]cargo, error) {
	c := r.c
	// The number of descriptors is checked before any is used. Where there are none, each piece is
	// checked when its turn comes.
	n := 0
	p := &r.now
	bare := len(g) == 0 && !r.packet.cut && r.hello == nil
	for rest := b; len(rest) > 0 && !bare; n += p.handles {
		var err error
		if rest, err = decodePiece(rest, p); err != nil {
			return g, err
		}
	}
	if r.hello != nil {
		if r.packet.cut {
			return g, fmt.Errorf("hello: %w", ErrNoFiles)
		}
		if allow := c.allow; allow != nil && (r.packet.cred == nil || !allow(*r.packet.cred)) {
			return g, ErrStranger
		}
	}
	if len(g) > n || len(g) < n && !r.packet.cut {
		return g, wireError("%d descriptors, %d announced", len(g), n)
	}
	if len(b) == 0 {
		return g, wireError("empty packet")
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
			for _, x := range mine {
				x.close()
			}
			if err != nil {
				return g, err
			}
			continue
		}
		if err := r.piece(p, mine); err != nil {
			return g, err
		}
	}
	return nil, nil
}

// piece works on one piece after the hello. It owns g.
func (r *receiver) piece(p *piece, g []cargo) error {
	c := r.c
	lane := p.lane()
	if c.data != nil && (lane == Data) != (r.end == c.data) {
		closeAll(g)
		return wireError("frame on the wrong lane")
	}
	t := &r.parts[lane]
	f := &r.frame
	if !t.active && p.bits&(pieceMore|pieceCont) == 0 && p.handles == 0 { // as most are
		f.Kind, f.Lane, f.Flags, f.Target, f.Payload, f.Handles = p.kind, lane, p.flags, p.target, p.payload, nil
		f.setTrace(p.trace)
		if len(p.payload) > c.cfg.MaxFrame {
			return wireError("frame of more than %d bytes", c.cfg.MaxFrame)
		}
		r.frames++
		return r.deliver(f)
	}
	if (p.bits&pieceCont != 0) != t.active {
		closeAll(g)
		return wireError("piece out of place")
	}
	if t.active && (p.kind != t.first.kind || p.flags != t.first.flags || p.target != t.first.target) {
		closeAll(g)
		return wireError("piece of another frame")
	}
	if !t.active {
		t.first, t.trace, t.lost = p.pieceHeader, TraceContext{}, 0
		copy(t.trace[:], p.trace)
		t.handles = nil
		if p.bits&pieceMore == 0 {
			t.handles = r.handles[:0]
		}
	}
	t.active = true
	if len(t.payload)+len(p.payload) > c.cfg.MaxFrame {
		closeAll(g)
		return wireError("frame of more than %d bytes", c.cfg.MaxFrame)
	}
	if p.handles > 0 {
		if err := r.receiveHandles(t, p, g); err != nil {
			return err
		}
	}
	whole := t.payload == nil && p.bits&pieceMore == 0
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
	t.active, t.payload, t.handles = false, nil, nil
	if t.lost != 0 {
		f.Refuse(t.lost)
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
	} else if f.Trace != (TraceContext{}) {
		f.Trace = TraceContext{}
	}
}

// receiveHandles makes handles of the cargo of one piece.
func (r *receiver) receiveHandles(t *part, p *piece, g []cargo) error {
	c := r.c
	if len(t.handles)+p.handles > maxCredits {
		closeAll(g)
		return wireError("frame of more than %d handles", maxCredits)
	}
	hs := make([]Handle, p.handles)
	b := p.entries
	for i := range hs {
		var e entry
		b = decodeEntry(b, &e)
		if c.peer != nil && int(e.slot) >= len(c.peer.words) {
			closeAll(g[min(i, len(g)):])
			return wireError("slot %d of %d", e.slot, len(c.peer.words))
		}
		h := &hs[i]
		h.state, h.fd, h.stated, h.name, h.Trace = handleReceived, -1, e.kind, e.name, e.trace
		h.from, h.ref = c, ref{e.slot, e.seq}
		if i < len(g) {
			h.fd, h.v = int32(g[i].fd), g[i].v
		} else {
			t.lost = ReasonNoFiles
		}
		t.handles = append(t.handles, h)
	}
	if c.held.Add(int64(p.handles)) > int64(c.cfg.Credits)*heldFactor && t.lost == 0 {
		t.lost = ReasonOverload
	}
	return nil
}

// heldFactor times Credits is what a receiver holds unclaimed. It is more than one because an offer that was
// revoked still has its descriptor here until somebody tries to claim it.
const heldFactor = 4

// drop gives up a frame that will never be whole.
func (t *part) drop() {
	for _, h := range t.handles {
		h.Close()
	}
	*t = part{}
}

func closeAll(g []cargo) {
	for _, x := range g {
		x.close()
	}
}

// deliver hands a whole frame to the application or the transport.
func (r *receiver) deliver(f *Frame) error {
	c := r.c
	if f.Kind >= FirstUserKind {
		select {
		case <-c.dying:
			f.Refuse(ReasonClosed)
		default:
			c.cfg.Handler(c, f)
		}
		return nil
	}
	switch f.Kind {
	case kindGoodbye:
		r.goodbye = true
		r.half = f.Target == goodbyeHalf
	case kindClaims:
		for b := f.Payload; len(b) > 0; b = b[claimLen:] {
			if len(b) < claimLen {
				return wireError("claims cut off")
			}
			at := ref{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
			if err := c.offers.answer(at, b[8], b[9]); err != nil {
				return err
			}
		}
	case kindWake:
		c.offers.settle()
	case kindPing:
		c.transport(kindPong, f.Target)
	case kindHello:
		return wireError("second hello")
	case kindPong: // it has been heard of
	}
	// Kinds of later versions are skipped.
	f.Refuse(ReasonUnknown)
	return nil
}

// An element of kindClaims: slot u32, sequence u32, reason u8, state u8, reserved u16.
const claimLen = 12

func appendClaim(b []byte, at ref, reason, state uint8) []byte {
	b = binary.LittleEndian.AppendUint32(b, at.slot)
	b = binary.LittleEndian.AppendUint32(b, at.seq)
	return append(b, reason, state, 0, 0)
}

// answer tells the sender what became of a handle it offered. It says false if the sender
// had taken it back, or cannot be told any more.
func (c *Conn) answer(h *Handle, reason, state uint8) bool {
	c.held.Add(-1)
	if c.peer != nil {
		won, wake := c.peer.settle(h.ref.slot, h.ref.seq, reason, state)
		if wake {
			c.transport(kindWake, 0)
		}
		return won
	}
	l := c.lanes[Control]
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return false
	}
	var b [claimLen]byte
	l.putLocked(&Frame{Kind: kindClaims, Payload: appendClaim(b[:0], h.ref, reason, state)}, nil)
	want := l.queued
	l.sendLocked(false)
	if state != wordClaimed {
		return true
	}
	// Without a table the claim holds once the kernel has it: it survives our death. If the peer takes
	// nothing for so long, the Conn ends, so that it is certain whether the claim went out.
	ctx, cancel := context.WithTimeout(context.Background(), claimPatience)
	defer cancel()
	if !l.flushTo(ctx, want) && ctx.Err() != nil {
		c.fail(fmt.Errorf("%w: it takes no claims", ErrPeerLost))
	}
	return l.took(want)
}

// claimPatience bounds the wait of a claim that travels as a frame.
const claimPatience = 5 * time.Second
