package fdipc

import (
	"errors"
	"io"
	"sync"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

// Pipe joins two Conns in memory, on every system. They keep the same rules as Conns between
// processes; handles move as Go values, no descriptor is touched. It panics if a Config is invalid.
func Pipe(a, b Config) (*Conn, *Conn) {
	x, y := newMemLane()
	return join(a, b, x, y)
}

// join makes Conns over the two ends of a control lane in memory.
func join(a, b Config, x, y endpoint) (*Conn, *Conn) {
	if err := errors.Join(a.validate(), b.validate()); err != nil {
		panic(err)
	}
	ca, cb := newConn(a), newConn(b)
	if err := errors.Join(ca.start(x), cb.start(y)); err != nil {
		panic(err) // links in memory do not fail
	}
	return ca, cb
}

// memEnd is one end of one lane: a bounded queue in each direction.
type memEnd struct{ in, out *memQueue }

// memQueueLen bounds a direction of a lane in memory, in packets.
const memQueueLen = 64

type memQueue struct {
	mu       sync.Mutex
	cond     sync.Cond
	items    []*packet
	eof      bool // the writer has ended
	broken   bool // the reader has ended
	draining bool // what is there is all there will be
}

func newMemQueue() *memQueue {
	q := new(memQueue)
	q.cond.L = &q.mu
	return q
}

// newMemLane makes a lane and returns its two ends.
func newMemLane() (a, b *memEnd) {
	x, y := newMemQueue(), newMemQueue()
	return &memEnd{in: x, out: y}, &memEnd{in: y, out: x}
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
	q := e.out
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.broken || q.eof {
			return ErrPeerLost
		}
		if len(q.items) < memQueueLen {
			break
		}
		if !wait {
			return errAgain
		}
		q.cond.Wait()
	}
	n := newPacket()
	n.buf, n.truncated = append(n.buf, p.buf...), p.truncated
	p.load()
	n.attachments = append(n.attachments, p.attachments...)
	p.unload()
	q.items = append(q.items, n)
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
	n := q.items[0]
	q.items = append(q.items[:0], q.items[1:]...)
	q.cond.Broadcast()
	q.mu.Unlock()
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
	e.in.items = nil
	e.in.mu.Unlock()
	e.in.closeRead()
	return nil
}

func (e *memEnd) pair() (endpoint, attachment, error) {
	a, b := newMemLane()
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
