package fdipc

import "time"

// deliver hands a whole frame to the application or the transport.
func (r *receiver) deliver(f *Frame) error {
	c := r.c
	if f.Kind >= FirstUserKind {
		if c.ended.Load() {
			f.Refuse(ReasonClosed)
		} else {
			c.cfg.Handler(c, f)
		}
		return nil
	}
	switch f.Kind {
	case kindGoodbye:
		r.goodbye = true
	case kindWake:
		c.offers.poll()
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

// answer says in the peer's claim table what became of a handle that the peer offered. It reports
// whether the peer had not taken the handle back.
func (c *Conn) answer(h *Handle, reason, state uint8) bool {
	c.held.Add(-1)
	if !h.Trace.none() {
		h.resolvedAt = time.Now().UnixNano()
	}
	won, wake := c.peer.Resolve(h.ref.slot, h.ref.seq, reason, state, h.resolvedAt)
	if wake {
		c.transport(kindWake, 0)
	}
	return won
}
