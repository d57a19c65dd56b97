package fdipc

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// lane is the sending half of a lane: a bounded queue of packets, filled by Send and
// emptied by whoever sends.
//
// An idle lane is written to directly, by the goroutine that calls Send: no hand-over, no
// added latency. When frames follow each other within burst, the lane's
// writer goroutine takes over, and what arrives while it is in a system call shares the
// next one. So a single frame is never delayed, and a stream of them is never
// sent one by one.
type lane struct {
	c   *Conn
	id  Lane
	end end // set by the handshake, before sending is cleared

	mu      sync.Mutex
	queue   []*packet // waiting; the last one takes further frames
	spare   []*packet // empty
	cur     *packet   // in the hands of the sender
	bytes   int       // in queue and cur
	frames  int
	sending bool          // somebody sends, or will: only it may touch cur
	calling bool          // it is in the system call
	err     error         // the Conn has ended
	closed  bool          // this side has closed the lane
	idle    sync.Cond     // calling was cleared, after the end of the Conn
	last    int64         // when the last direct send was over
	queued  uint64        // packets ever queued
	sent    uint64        // packets ever sent
	room    chan struct{} // closed when there is room again; nil if nobody waits
	wake    chan struct{} // to the writer
}

// burst is the pause, in nanoseconds, under which two sends are a stream. It is shorter
// than any round trip between two processes and longer than a loop around Send.
const burst = 3000

var epoch = time.Now()

func now() int64 { return int64(time.Since(epoch)) }

func newLane(c *Conn, id Lane) *lane {
	// sending is set: nothing is sent before the handshake is over.
	l := &lane{c: c, id: id, sending: true, wake: make(chan struct{}, 1)}
	l.idle.L = &l.mu
	return l
}

// fitsLocked says whether n more bytes of frames may be queued.
func (l *lane) fitsLocked(n int) bool {
	if l.frames == 0 {
		return true
	}
	return l.bytes+n <= l.c.cfg.QueueBytes && l.frames < l.c.cfg.QueueFrames
}

func (l *lane) fullLocked() {
	if l.room != nil {
		close(l.room)
		l.room = nil
	}
}

// waitRoom waits until somebody may try again. It is called with mu held and releases it.
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

// tailLocked gives the packet to append to. It has room for min bytes and, if handles are to
// come, for one.
func (l *lane) tailLocked(min int, handles bool) *packet {
	if n := len(l.queue); n > 0 {
		p := l.queue[n-1]
		if len(p.buf)+min <= sendPacket && !(handles && len(p.refs) >= sendFDs) {
			return p
		}
	}
	return l.addLocked()
}

func (l *lane) addLocked() *packet {
	var p *packet
	if n := len(l.spare); n > 0 {
		p, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		p = newPacket()
	}
	l.queue = append(l.queue, p)
	l.queued++
	return p
}

// spares is how many empty packets a lane keeps. The last one put back is the first one
// taken, so that a stream stays in the processor's cache.
const spares = 4

// putLocked queues a frame, in as many pieces as it takes. refs are the offers of its
// handles; it cannot fail.
func (l *lane) putLocked(f *Frame, refs []ref) {
	l.frames++
	bits := uint8(0)
	if l.id == Data {
		bits = pieceData
	}
	size := pieceHead + len(f.Payload)
	traced := f.Trace != (TraceContext{})
	if traced {
		size += traceLen
	}
	for _, h := range f.Handles {
		size += h.entrySize()
	}
	// A frame that fits a packet is not cut in two, unless it has too many handles.
	p := l.tailLocked(min(size, sendPacket), len(refs) > 0)
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
		for next < len(refs) && len(p.refs) < maxFDs && len(b)+f.Handles[next].entrySize() <= sendPacket {
			e := f.Handles[next].entry()
			e.slot, e.seq = refs[next].slot, refs[next].seq
			b = appendEntry(b, &e)
			p.refs, p.off = append(p.refs, refs[next]), &l.c.offers
			next++
		}
		n := 0
		if next == len(refs) {
			n = min(len(payload), sendPacket-len(b))
		}
		b = append(b, payload[:n]...)
		payload = payload[n:]
		more := len(payload) > 0 || next < len(refs)
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
		p = l.addLocked()
	}
}

// sendLocked sees to it that what is queued gets sent. It is called with mu held and
// releases it. It never blocks.
func (l *lane) sendLocked(more bool) {
	if l.sending || len(l.queue) == 0 {
		l.mu.Unlock()
		return
	}
	l.sending = true
	if more || now()-l.last < burst {
		l.mu.Unlock()
		l.wakeWriter()
		return
	}
	l.nextLocked()
	l.calling = true
	l.mu.Unlock()
	err := l.end.try(l.cur)
	l.mu.Lock()
	l.calledLocked(err)
	switch {
	case err == nil:
		l.last = now()
		if len(l.queue) == 0 {
			l.sending = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.wakeWriter()
	case errors.Is(err, errAgain):
		l.mu.Unlock()
		l.wakeWriter()
	default:
		l.mu.Unlock()
		l.c.broken(err)
	}
}

func (l *lane) wakeWriter() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// nextLocked takes the next packet into cur.
func (l *lane) nextLocked() {
	l.cur = l.queue[0]
	n := copy(l.queue, l.queue[1:])
	l.queue[n] = nil
	l.queue = l.queue[:n]
}

// calledLocked ends a system call.
func (l *lane) calledLocked(err error) {
	l.calling = false
	if err == nil {
		l.doneLocked()
	}
	if l.err != nil {
		l.idle.Broadcast()
	}
}

// doneLocked puts away cur, which was sent.
func (l *lane) doneLocked() {
	p := l.cur
	l.cur = nil
	l.sent++
	l.bytes -= len(p.buf)
	l.frames -= p.frames
	st := &l.c.stats
	st.framesSent.Add(uint64(p.frames))
	st.packetsSent.Add(1)
	st.bytesSent.Add(uint64(len(p.buf)))
	if len(l.spare) < spares {
		p.reset()
		l.spare = append(l.spare, p)
	} else {
		p.free()
	}
	if l.room != nil && l.bytes <= l.c.cfg.QueueBytes/2 {
		l.fullLocked()
	}
}

// write is the lane's writer. It runs until the Conn ends.
func (l *lane) write() {
	pause := time.Duration(0)
	for {
		select {
		case <-l.wake:
		case <-l.c.dying:
			return
		}
		runtime.Gosched() // others may have something for the same packet
		l.mu.Lock()
		for l.err == nil {
			if l.cur == nil {
				if len(l.queue) == 0 {
					l.sending = false
					break
				}
				l.nextLocked()
			}
			l.calling = true
			l.mu.Unlock()
			err := l.end.send(l.cur)
			l.mu.Lock()
			l.calledLocked(err)
			if err == nil {
				pause = 0
				continue
			}
			l.mu.Unlock()
			if errors.Is(err, errAgain) {
				// The kernel has no room that the poller could tell of: too many descriptors
				// of this user are in flight, or it is short of memory.
				l.c.stats.retried.Add(1)
				pause = min(max(2*pause, time.Millisecond), 50*time.Millisecond)
				select {
				case <-time.After(pause):
				case <-l.c.dying:
					return
				}
			} else {
				l.c.broken(err)
				return
			}
			l.mu.Lock()
		}
		l.mu.Unlock()
	}
}

// shut refuses further frames of the application.
func (l *lane) shut() {
	l.mu.Lock()
	l.closed = true
	l.fullLocked()
	l.mu.Unlock()
}

// flush waits until everything queued so far was taken by the kernel, and says whether it was.
func (l *lane) flush(ctx context.Context) bool {
	l.mu.Lock()
	want := l.queued
	l.mu.Unlock()
	return l.flushTo(ctx, want)
}

// flushTo waits until the kernel has taken want packets, as counted by queued.
func (l *lane) flushTo(ctx context.Context, want uint64) bool {
	l.mu.Lock()
	for l.err == nil && l.sent < want {
		if l.waitRoom(ctx) != nil {
			return false
		}
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	return l.sent >= want
}

// took says whether the kernel has taken want packets, once that is certain: the Conn has ended and nobody
// is in a system call, or it has.
func (l *lane) took(want uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.sent < want && l.calling {
		l.idle.Wait()
	}
	return l.sent >= want
}

// fail refuses all further frames and wakes who waits. A packet in the hands of a sender is
// left to it; the others are dropped, their offers are settled by offers.end.
func (l *lane) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.queue = nil
	l.fullLocked()
	l.mu.Unlock()
}
