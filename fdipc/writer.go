package fdipc

import (
	"cmp"
	"context"
	"errors"
	"os"
	"runtime"
	"time"
)

// burst is the pause, in nanoseconds, under which two sends are a stream. It is shorter
// than any round trip between two processes and longer than a loop around Send.
const burst = 3000

// atOnce is how many packets of a frame its sender sends itself, before it leaves the others to the
// writer: the receiver then finds all of it where it would be woken for each.
const atOnce = 4

// sendLocked has what is queued sent. It is called with mu held and releases it. It never blocks.
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
	var err error
	for range atOnce {
		l.nextLocked()
		l.active = true
		l.mu.Unlock()
		err = l.endpoint.try(l.cur)
		l.mu.Lock()
		l.triedLocked()
		if err != nil {
			break
		}
		l.sentLocked()
		if l.suspended || len(l.queue) == 0 || l.queue[0].buf[5]&pieceCont == 0 {
			break
		}
	}
	switch {
	case err == nil:
		l.last = now()
		if len(l.queue) == 0 && !l.suspended {
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
		l.c.sendFailed(err)
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

// triedLocked notes that the system call with cur is over.
func (l *lane) triedLocked() {
	l.active = false
	if l.suspended {
		l.wakeSendersLocked() // suspend waits for that
	}
}

// sentLocked puts away cur, which was sent.
func (l *lane) sentLocked() {
	p := l.cur
	l.cur = nil
	l.sent++
	l.bytes -= len(p.buf)
	l.frames -= p.frames
	st := &l.c.stats
	st.framesSent.Add(uint64(p.frames))
	st.packetsSent.Add(1)
	st.bytesSent.Add(uint64(len(p.buf)))
	if len(l.free) < maxFreePackets {
		p.reset()
		l.free = append(l.free, p)
	} else {
		p.free()
	}
	if l.room != nil && l.bytes <= l.c.cfg.QueueBytes/2 {
		l.wakeSendersLocked()
	}
}

// write is the lane's writer. It runs until the Conn ends.
func (l *lane) write() {
	pause := time.Duration(0)
	for {
		select {
		case <-l.wake:
		case <-l.c.ending:
			return
		}
		runtime.Gosched() // others may have something for the same packet
		l.mu.Lock()
		for l.err == nil && !l.active && !l.suspended {
			if l.cur == nil {
				if len(l.queue) == 0 {
					l.sending = false
					break
				}
				l.nextLocked()
			}
			l.active = true
			l.mu.Unlock()
			err := l.endpoint.send(l.cur)
			l.mu.Lock()
			l.triedLocked()
			if err == nil {
				l.sentLocked()
				pause = 0
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) { // the Conn is suspended, or was
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
				case <-l.c.ending:
					return
				}
			} else {
				l.c.sendFailed(err)
				return
			}
			l.mu.Lock()
		}
		l.mu.Unlock()
	}
}

// refuse refuses further frames of the application.
func (l *lane) refuse() {
	l.mu.Lock()
	l.closed, l.refusal = true, cmp.Or(l.refusal, ErrClosed)
	l.wakeSendersLocked()
	l.mu.Unlock()
}

// flush waits until the kernel has taken everything queued so far, and reports whether it has.
func (l *lane) flush(ctx context.Context) bool {
	l.mu.Lock()
	want := l.queued
	for l.err == nil && l.sent < want {
		if l.waitRoom(ctx) != nil {
			return false
		}
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	return l.sent >= want
}

// fail refuses all further frames and wakes the senders that wait. A packet in the hands of a
// sender is left to it; the others are dropped, offers.close resolves their offers.
func (l *lane) fail(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.queue = nil
	l.wakeSendersLocked()
	l.mu.Unlock()
}
