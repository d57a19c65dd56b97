package fdipc

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

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
		r.half = f.Target == goodbyeHalf
	case kindClaims:
		for b := f.Payload; len(b) > 0; b = b[claimLen:] {
			if len(b) < claimLen {
				return wireError("claims cut off")
			}
			at := offerID{binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])}
			if err := c.offers.answer(at, b[8], b[9]); err != nil {
				return err
			}
		}
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

// An element of kindClaims: slot u32, sequence u32, reason u8, state u8, reserved u16.
const claimLen = 12

func appendClaim(b []byte, at offerID, reason, state uint8) []byte {
	b = binary.LittleEndian.AppendUint32(b, at.slot)
	b = binary.LittleEndian.AppendUint32(b, at.seq)
	return append(b, reason, state, 0, 0)
}

// answer tells the sender what became of a handle it offered. It says false if the sender
// had taken it back, or cannot be told any more.
func (c *Conn) answer(h *Handle, reason, state uint8) bool {
	c.held.Add(-1)
	if !h.Trace.none() {
		h.resolvedAt = time.Now().UnixNano()
	}
	if c.peer != nil {
		won, wake := c.peer.resolve(h.ref.slot, h.ref.seq, reason, state, h.resolvedAt)
		if wake {
			c.transport(kindWake, 0)
		}
		return won
	}
	l := c.lanes[Control]
	l.mu.Lock()
	if l.err != nil || l.tooManyAnswersLocked() {
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
