package fdipc

import (
	"context"
	"sync"
	"time"
)

// lane is the sending half of a lane: a bounded queue of packets. Send fills it; the goroutine that
// sends empties it.
//
// An idle lane is written to directly, by the goroutine that calls Send: no hand-over, no added
// latency. When frames follow each other within burst, the lane's writer goroutine takes over, and
// what arrives while it is in a system call shares the next one. So a single frame is never
// delayed, and a stream of them is never sent one by one.
type lane struct {
	c        *Conn
	id       Lane
	endpoint endpoint // set by the handshake, before sending is cleared

	mu      sync.Mutex
	queue   []*packet // waiting; the last one takes further frames
	free    []*packet // empty
	cur     *packet   // in the hands of the sender
	bytes   int       // in queue and cur
	frames  int
	sending bool          // a goroutine sends, or will: only it may touch cur
	active  bool          // cur is in a system call
	err     error         // the Conn has ended
	refusal error         // why nothing more is queued: this side has closed or suspended the lane
	closed  bool          // this side has closed the lane
	last    int64         // when the last direct send was over
	queued  uint64        // packets ever queued
	sent    uint64        // packets ever sent
	room    chan struct{} // closed when there is room again; nil if nothing waits
	wake    chan struct{} // to the writer
	entries []handleEntry // see describeLocked

	suspended bool // nothing is sent or queued; sending is set
}

var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

func newLane(c *Conn, id Lane) *lane {
	// sending is set: nothing is sent before the handshake is over.
	return &lane{c: c, id: id, sending: true, wake: make(chan struct{}, 1)}
}

// fitsLocked reports whether n more bytes of frames may be queued.
func (l *lane) fitsLocked(n int) bool {
	if l.frames == 0 {
		return true
	}
	return l.bytes+n <= l.c.cfg.QueueBytes && l.frames < l.c.cfg.QueueFrames
}

func (l *lane) wakeSendersLocked() {
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// waitRoom waits until there is room again. It is called with mu held and releases it.
func (l *lane) waitRoom(ctx context.Context) error {
	if l.room == nil {
		l.room = make(chan struct{})
	}
	room := l.room
	l.mu.Unlock()
	select {
	case <-room:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tailLocked returns the packet to append to. It has room for min bytes and, if handles are to
// come, for one.
func (l *lane) tailLocked(min int, handles bool) *packet {
	if n := len(l.queue); n > 0 {
		p := l.queue[n-1]
		if len(p.buf)+min <= sendPacket && !(handles && len(p.refs) >= sendFDs) {
			return p
		}
	}
	return l.addPacketLocked()
}

func (l *lane) addPacketLocked() *packet {
	var p *packet
	if n := len(l.free); n > 0 {
		p, l.free = l.free[n-1], l.free[:n-1]
	} else {
		p = newPacket()
	}
	l.queue = append(l.queue, p)
	l.queued++
	return p
}

// maxFreePackets is how many empty packets a lane keeps. The last one put back is the first one
// taken, so that a stream stays in the processor's cache.
const maxFreePackets = 4

// tryAppend puts a frame without handles into the packet that is being filled, if a goroutine is
// about to send that packet and the frame fits: the short way for a stream of small frames. It
// reports whether it did.
func (l *lane) tryAppend(f *Frame) bool {
	size := pieceHead + len(f.Payload)
	bits := uint8(0)
	if l.id == Data {
		bits = pieceData
	}
	traced := !f.Trace.none()
	if traced {
		bits |= pieceTrace
		size += traceLen
	}
	l.mu.Lock()
	n := len(l.queue)
	if n == 0 || !l.sending || l.refusal != nil || !l.fitsLocked(len(f.Payload)) || len(l.queue[n-1].buf)+size > sendPacket {
		l.mu.Unlock()
		return false
	}
	p := l.queue[n-1]
	b := p.buf[:len(p.buf)+pieceHead]
	putPieceHeader(b[len(p.buf):], pieceHeader{n: len(f.Payload), kind: f.Kind, bits: bits, flags: f.Flags, target: f.Target})
	if traced {
		b = append(b, f.Trace[:]...)
	}
	p.buf = append(b, f.Payload...)
	p.frames++
	l.frames++
	l.bytes += size
	l.mu.Unlock()
	return true
}

// describeLocked returns what the peer is told of hs; it is valid until the next call. It must come
// before they are offered: an offer may run out at once, and then its handle is its owner's again,
// which may change it.
func (l *lane) describeLocked(hs []*Handle) []handleEntry {
	l.entries = l.entries[:0]
	for _, h := range hs {
		l.entries = append(l.entries, h.entry())
	}
	return l.entries
}

// putLocked queues a frame, in as many pieces as it takes. entries describe its handles, which are
// not looked at; it cannot fail.
func (l *lane) putLocked(f *Frame, entries []handleEntry) {
	l.frames++
	bits := uint8(0)
	if l.id == Data {
		bits = pieceData
	}
	size := pieceHead + len(f.Payload)
	traced := !f.Trace.none()
	if traced {
		size += traceLen
	}
	for i := range entries {
		size += entries[i].size()
	}
	// A frame that fits a packet is not cut in two, unless it has too many handles.
	p := l.tailLocked(min(size, sendPacket), len(entries) > 0)
	p.frames++
	payload, next := f.Payload, 0
	for {
		start := len(p.buf)
		b := p.buf[:start+pieceHead]
		pb := bits
		if traced && bits&pieceCont == 0 {
			pb |= pieceTrace
			b = append(b, f.Trace[:]...)
		}
		first := next
		for next < len(entries) && len(p.refs) < maxFDs && len(b)+entries[next].size() <= sendPacket {
			e := &entries[next]
			b = appendEntry(b, e)
			p.refs, p.off = append(p.refs, offerID{e.slot, e.seq}), &l.c.offers
			next++
		}
		n := 0
		if next == len(entries) {
			n = min(len(payload), maxPacket-len(b))
		}
		b = append(b, payload[:n]...)
		payload = payload[n:]
		more := len(payload) > 0 || next < len(entries)
		if more {
			pb |= pieceMore
		}
		putPieceHeader(b[start:], pieceHeader{n: n, kind: f.Kind, bits: pb, flags: f.Flags, handles: next - first, target: f.Target})
		p.buf = b
		l.bytes += len(b) - start
		if !more {
			return
		}
		bits |= pieceCont
		p = l.addPacketLocked()
	}
}
