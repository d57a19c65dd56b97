package fdipc

import (
	"errors"
	"io"
	"sync"
)

// errAgain: there is no room just now.
var errAgain = errors.New("no room")

// end is one side of one lane's link: packets go out and come in whole. One goroutine
// sends at a time per packet and one receives.
type end interface {
	// try sends p without blocking, or answers errAgain.
	try(p *packet) error
	// send sends p and blocks while there is no room.
	send(p *packet) error
	// recv fills p and blocks until it can. io.EOF is the peer's end; any other
	// error is the link's.
	recv(p *packet) error
	// drain makes recv answer io.EOF instead of blocking, from now on.
	drain()
	closeWrite() error
	close() error
	// pair makes a further link and gives its two ends, the second as cargo for the peer.
	pair() (local end, remote cargo, err error)
	// adopt makes an end of cargo that pair made on the other side. It takes ownership.
	adopt(cargo) (end, error)
	// newTable makes a claim table and its cargo for the peer; adoptTable maps it.
	newTable(slots int) (*table, cargo, error)
	adoptTable(cargo) (*table, error)
}

// cargo travels beside the bytes of a packet: a descriptor through a socket, a Go value in memory.
type cargo struct {
	fd int // -1: none
	v  any
}

var noCargo = cargo{fd: -1}

func (g cargo) close() {
	if g.fd >= 0 {
		closeFD(g.fd)
	}
}

// packet is what one sendmsg or recvmsg moves. A packet has one owner at a time.
type packet struct {
	buf    []byte // capacity maxPacket
	frames int    // frames that begin in it
	cargo  []cargo
	cut    bool // received: descriptors were lost (MSG_CTRUNC)

	// refs are the offers behind the cargo. They are looked up anew at every attempt to send,
	// because an offer can be taken back while its packet waits.
	refs []ref
	off  *offers

	io packetIO
}

type ref struct{ slot, seq uint32 }

var packets = sync.Pool{New: func() any {
	p := &packet{buf: make([]byte, 0, maxPacket)}
	p.io.init(p)
	return p
}}

func newPacket() *packet { return packets.Get().(*packet) }

// free gives p back. Cargo is not closed.
func (p *packet) free() {
	p.buf, p.frames, p.cut, p.off = p.buf[:0], 0, false, nil
	clear(p.cargo)
	p.cargo, p.refs = p.cargo[:0], p.refs[:0]
	packets.Put(p)
}

// load fills in the cargo before an attempt to send; unload must follow.
func (p *packet) load() {
	if len(p.refs) > 0 {
		p.off.load(p)
	}
}

func (p *packet) unload(sent bool) {
	if len(p.refs) > 0 {
		p.off.unload(p, sent)
	}
}

// memEnd is an end of a link within one process: a bounded queue in each direction.
type memEnd struct{ in, out *memQueue }

// memQueueLen bounds a direction of a memory link, in packets.
const memQueueLen = 64

type memQueue struct {
	mu      sync.Mutex
	cond    sync.Cond
	items   []*packet
	eof     bool // the writer has ended
	broken  bool // the reader has ended
	drained bool
}

func newMemPair() (a, b *memEnd) {
	x, y := new(memQueue), new(memQueue)
	x.cond.L, y.cond.L = &x.mu, &y.mu
	return &memEnd{x, y}, &memEnd{y, x}
}

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
	n.buf = append(n.buf, p.buf...)
	p.load()
	n.cargo = append(n.cargo, p.cargo...)
	p.unload(true)
	q.items = append(q.items, n)
	q.cond.Broadcast()
	return nil
}

func (e *memEnd) try(p *packet) error  { return e.put(p, false) }
func (e *memEnd) send(p *packet) error { return e.put(p, true) }

func (e *memEnd) recv(p *packet) error {
	q := e.in
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 {
		if q.eof || q.broken || q.drained {
			return io.EOF
		}
		q.cond.Wait()
	}
	n := q.items[0]
	q.items = append(q.items[:0], q.items[1:]...)
	p.buf = append(p.buf[:0], n.buf...)
	clear(p.cargo)
	p.cargo = append(p.cargo[:0], n.cargo...)
	p.cut = n.cut
	n.free()
	q.cond.Broadcast()
	return nil
}

func (e *memEnd) drain() {
	e.in.mu.Lock()
	e.in.drained = true
	e.in.cond.Broadcast()
	e.in.mu.Unlock()
}

func (e *memEnd) closeWrite() error {
	e.out.mu.Lock()
	e.out.eof = true
	e.out.cond.Broadcast()
	e.out.mu.Unlock()
	return nil
}

func (e *memEnd) close() error {
	e.closeWrite()
	e.in.mu.Lock()
	e.in.broken = true
	for _, p := range e.in.items {
		for _, g := range p.cargo {
			if c, ok := g.v.(*memEnd); ok {
				defer c.close()
			}
		}
		p.free()
	}
	e.in.items = nil
	e.in.cond.Broadcast()
	e.in.mu.Unlock()
	return nil
}

func (e *memEnd) pair() (end, cargo, error) {
	a, b := newMemPair()
	return a, cargo{fd: -1, v: b}, nil
}

func (e *memEnd) adopt(g cargo) (end, error) {
	if b, ok := g.v.(*memEnd); ok {
		return b, nil
	}
	return nil, wireError("not a link")
}

func (e *memEnd) newTable(slots int) (*table, cargo, error) {
	t := newTable(make([]uint64, tableWords+slots))
	return t, cargo{fd: -1, v: t}, nil
}

func (e *memEnd) adoptTable(g cargo) (*table, error) {
	if t, ok := g.v.(*table); ok {
		return t, nil
	}
	return nil, wireError("not a table")
}
