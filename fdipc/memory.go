package fdipc

import (
	"errors"
	"io"
	"sync"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

// Pipe joins two Conns in memory, on every system. They keep the same rules as Conns between
// processes; handles move as Go values, no descriptor is touched. It panics if a Config is invalid.
func Pipe(a, b Config) (*Conn, *Conn) { return pipe(nil, a, b) }

func pipe(hook faultHook, a, b Config) (*Conn, *Conn) {
	if err := errors.Join(a.validate(), b.validate()); err != nil {
		panic(err)
	}
	l := &memLink{hook: hook}
	x, y := l.pair(0)
	ca, cb := newConn(a), newConn(b)
	for _, err := range []error{ca.start(x), cb.start(y)} {
		if err != nil {
			panic(err) // memory links do not fail
		}
	}
	return ca, cb
}

// faultHook is asked about every packet, with locks held; it must not block. It is for tests.
type faultHook func(packetEvent) packetFault

// packetEvent is a packet on its way.
type packetEvent struct {
	side  int   // 0: sent by the first Conn, 1: by the second
	kind  uint8 // of the packet's first frame
	count int   // descriptors with it
}

// packetFault is what becomes of it.
type packetFault struct {
	again    bool            // there is no room for it just now
	cut      bool            // the link ends before it, as if the sender's process had died
	truncate bool            // the receiver's descriptor table is full
	keep     int             // with truncate: so many descriptors arrive
	hold     <-chan struct{} // it is not received before this is closed
	write    []byte          // if not nil: these bytes instead, as a hostile peer would
}

// memLink is a link within the process, with all its lanes.
type memLink struct {
	hook faultHook

	mu     sync.Mutex
	queues []*memQueue
}

// memEnd is one end of one lane: a bounded queue in each direction.
type memEnd struct {
	link    *memLink
	side    int
	in, out *memQueue
}

// memQueueLen bounds a direction of a lane in memory, in packets.
const memQueueLen = 64

type memQueue struct {
	mu       sync.Mutex
	cond     sync.Cond
	items    []*packet
	holds    []<-chan struct{} // of items; nil: none
	eof      bool              // the writer has ended
	broken   bool              // the reader has ended
	draining bool              // what is there is all there will be
}

func newMemQueue() *memQueue {
	q := new(memQueue)
	q.cond.L = &q.mu
	return q
}

// pair makes a lane; the first end is that of the given side.
func (l *memLink) pair(side int) (a, b *memEnd) {
	x, y := newMemQueue(), newMemQueue()
	l.mu.Lock()
	l.queues = append(l.queues, x, y)
	l.mu.Unlock()
	return &memEnd{link: l, side: side, in: x, out: y}, &memEnd{link: l, side: 1 - side, in: y, out: x}
}

// cut ends all lanes in both directions. What was sent before can still be received.
func (l *memLink) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queues {
		q.closeWrite()
		q.closeRead()
	}
}

func (q *memQueue) closeWrite() {
	q.mu.Lock()
	q.eof = true
	q.cond.Broadcast()
	q.mu.Unlock()
}

func (q *memQueue) closeRead() {
	q.mu.Lock()
	q.broken = true
	q.cond.Broadcast()
	q.mu.Unlock()
}

// put queues a copy of p.
func (e *memEnd) put(p *packet, wait bool) error {
	var act packetFault
	if h := e.link.hook; h != nil {
		act = h(packetEvent{side: e.side, kind: p.buf[4], count: len(p.attachments) + len(p.refs)})
		if act.cut {
			e.link.cut()
		}
	}
	q := e.out
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.broken || q.eof {
			return ErrPeerLost
		}
		if len(q.items) < memQueueLen && !act.again {
			break
		}
		if !wait || act.again {
			return errAgain
		}
		q.cond.Wait()
	}
	n := newPacket()
	n.buf = append(n.buf, p.buf...)
	if act.write != nil {
		n.buf = append(n.buf[:0], act.write[:min(len(act.write), maxPacket)]...)
	}
	p.load()
	n.attachments = append(n.attachments, p.attachments...)
	p.unload()
	if act.truncate {
		n.attachments, n.truncated = n.attachments[:min(act.keep, len(n.attachments))], true
	}
	q.items, q.holds = append(q.items, n), append(q.holds, act.hold)
	q.cond.Broadcast()
	return nil
}

func (e *memEnd) try(p *packet) error  { return e.put(p, false) }
func (e *memEnd) send(p *packet) error { return e.put(p, true) }

func (e *memEnd) recv(p *packet) error {
	q := e.in
	q.mu.Lock()
	for len(q.items) == 0 {
		if q.eof || q.broken || q.draining {
			q.mu.Unlock()
			return io.EOF
		}
		q.cond.Wait()
	}
	n, hold := q.items[0], q.holds[0]
	q.items = append(q.items[:0], q.items[1:]...)
	q.holds = append(q.holds[:0], q.holds[1:]...)
	q.cond.Broadcast()
	q.mu.Unlock()
	if hold != nil {
		<-hold
	}
	p.buf = append(p.buf[:0], n.buf...)
	clear(p.attachments)
	p.attachments, p.truncated = append(p.attachments[:0], n.attachments...), n.truncated
	n.free()
	return nil
}

func (e *memEnd) drain() {
	e.in.mu.Lock()
	e.in.draining = true
	e.in.cond.Broadcast()
	e.in.mu.Unlock()
}

func (e *memEnd) ended() bool {
	e.in.mu.Lock()
	defer e.in.mu.Unlock()
	return e.in.eof
}

func (e *memEnd) stop() {
	e.in.closeWrite()
	e.out.closeWrite()
}

// Suspend is for sockets.
func (e *memEnd) pause(bool, bool) {}
func (e *memEnd) fd() int          { return -1 }
func (e *memEnd) gone() bool       { return false }

func (e *memEnd) close() error {
	e.out.closeWrite()
	e.in.mu.Lock()
	e.in.items, e.in.holds = nil, nil
	e.in.mu.Unlock()
	e.in.closeRead()
	return nil
}

func (e *memEnd) pair() (endpoint, attachment, error) {
	a, b := e.link.pair(e.side)
	return a, attachment{fd: -1, v: b}, nil
}

func (e *memEnd) adopt(g attachment) (endpoint, error) {
	if b, ok := g.v.(*memEnd); ok {
		return b, nil
	}
	return nil, wireError("not a lane")
}

func (e *memEnd) newTable(slots int) (*claims.Table, attachment, error) {
	t := claims.New(make([]uint64, claims.Len(slots)))
	return t, attachment{fd: -1, v: t}, nil
}

func (e *memEnd) adoptTable(g attachment) (*claims.Table, error) {
	if t, ok := g.v.(*claims.Table); ok {
		return t, nil
	}
	return nil, wireError("not a table")
}
