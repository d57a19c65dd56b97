package fdipc

import (
	"strconv"
	"sync"
)

// FaultSide is one of the two Conns of a FaultLink.
type FaultSide int

const (
	SideA FaultSide = iota // the first
	SideB                  // the second
)

// FaultPoint names the packets at which a FaultLink can interfere, by the frame they begin with.
type FaultPoint uint8

const (
	AtHello   FaultPoint = iota // the handshake
	AtGoodbye                   // of Close
	AtWake                      // "look at the table"
	AtFrames                    // frames of the application, without handles
	AtHandles                   // frames of the application, with handles
)

// FaultPoints are all of them.
var FaultPoints = []FaultPoint{AtHello, AtGoodbye, AtWake, AtFrames, AtHandles}

func (p FaultPoint) String() string {
	names := [...]string{"hello", "goodbye", "wake", "frames", "handles"}
	if int(p) < len(names) {
		return names[p]
	}
	return "point " + strconv.Itoa(int(p))
}

func pointOf(p *packet) (FaultPoint, bool) {
	kind := Kind(p.buf[4]) // of its first frame
	switch {
	case kind >= FirstUserKind && len(p.attachments)+len(p.refs) > 0:
		return AtHandles, true
	case kind >= FirstUserKind:
		return AtFrames, true
	}
	at, ok := map[Kind]FaultPoint{kindHello: AtHello, kindGoodbye: AtGoodbye, kindWake: AtWake}[kind]
	return at, ok
}

// packetFault is what becomes of a packet.
type packetFault struct {
	again    bool            // there is no room for it just now
	cut      bool            // the link ends before it, as if the sender's process had died
	truncate bool            // the receiver's descriptor table is full
	keep     int             // with truncate: so many descriptors arrive
	hold     <-chan struct{} // it is not received before this is closed
	write    []byte          // if not nil: these bytes instead, as a hostile peer would
}

// FaultLink is a link in memory with faults. The zero value has none. Faults are set before or
// while the link is used; each strikes once.
type FaultLink struct {
	mu     sync.Mutex
	faults []*faultRule
	queues []*memQueue // of all lanes
}

type faultRule struct {
	side   FaultSide
	point  FaultPoint
	after  int
	times  int
	action packetFault
	struck chan struct{}
}

// Join makes the two Conns. It is called once.
func (l *FaultLink) Join(a, b Config) (*Conn, *Conn) {
	x, y := l.lane(SideA)
	return join(a, b, x, y)
}

// lane makes a lane; the first end is that of the given side.
func (l *FaultLink) lane(side FaultSide) (a, b *faultyEnd) {
	x, y := newMemLane()
	l.mu.Lock()
	l.queues = append(l.queues, x.in, x.out)
	l.mu.Unlock()
	there, back := new(holdQueue), new(holdQueue)
	return &faultyEnd{x, l, side, back, there}, &faultyEnd{y, l, 1 - side, there, back}
}

// end ends all lanes in both directions. What was sent before can still be received.
func (l *FaultLink) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, q := range l.queues {
		q.closeWrite()
		q.closeRead()
	}
}

// holdQueue has, for each packet on its way, the channel that holds it back, or nil.
type holdQueue struct {
	mu    sync.Mutex
	holds []<-chan struct{}
}

// take removes the entry at i; -1 is the last.
func (q *holdQueue) take(i int) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i < 0 {
		i = len(q.holds) - 1
	}
	hold := q.holds[i]
	q.holds = append(q.holds[:i:i], q.holds[i+1:]...)
	return hold
}

// faultyEnd is an end of a lane in memory that asks a FaultLink about each packet.
type faultyEnd struct {
	*memEnd
	link     *FaultLink
	side     FaultSide
	from, to *holdQueue
}

func (e *faultyEnd) try(p *packet) error  { return e.strike(p, e.memEnd.try) }
func (e *faultyEnd) send(p *packet) error { return e.strike(p, e.memEnd.send) }

func (e *faultyEnd) strike(p *packet, send func(*packet) error) error {
	act := e.link.strike(e.side, p)
	if act.cut {
		e.link.end()
	}
	if act.again {
		return errAgain
	}
	if act.truncate || act.write != nil {
		n := newPacket()
		defer n.free()
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
		p = n
	}
	e.to.mu.Lock()
	e.to.holds = append(e.to.holds, act.hold)
	e.to.mu.Unlock()
	err := send(p)
	if err != nil {
		e.to.take(-1) // one packet is sent at a time
	}
	return err
}

func (e *faultyEnd) recv(p *packet) error {
	err := e.memEnd.recv(p)
	if err == nil {
		if hold := e.from.take(0); hold != nil {
			<-hold
		}
	}
	return err
}

func (e *faultyEnd) pair() (endpoint, attachment, error) {
	a, b := e.link.lane(e.side)
	return a, attachment{fd: -1, v: b}, nil
}

func (e *faultyEnd) adopt(g attachment) (endpoint, error) {
	if b, ok := g.v.(*faultyEnd); ok {
		return b, nil
	}
	return nil, wireError("not a lane")
}

func (l *FaultLink) strike(side FaultSide, packet *packet) packetFault {
	p, ok := pointOf(packet)
	if !ok {
		return packetFault{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	hit := -1
	for i, r := range l.faults {
		switch {
		case r.side != side || r.point != p:
		case r.after > 0:
			r.after--
		case hit < 0:
			hit = i
		}
	}
	if hit < 0 {
		return packetFault{}
	}
	r := l.faults[hit]
	if r.times--; r.times <= 0 {
		l.faults = append(l.faults[:hit:hit], l.faults[hit+1:]...)
		close(r.struck)
	}
	return r.action
}

// add arms a fault for the packet of side s at point p after skipping n of them. The channel is
// closed when it struck.
func (l *FaultLink) add(s FaultSide, p FaultPoint, n, times int, act packetFault) <-chan struct{} {
	r := &faultRule{s, p, n, times, act, make(chan struct{})}
	l.mu.Lock()
	l.faults = append(l.faults, r)
	l.mu.Unlock()
	return r.struck
}

// Cut ends the link just before s sends its n-th packet (from 0) at p: both sides see the other
// die.
func (l *FaultLink) Cut(s FaultSide, p FaultPoint, n int) (struck <-chan struct{}) {
	return l.add(s, p, n, 1, packetFault{cut: true})
}

// Delay holds that packet back, and what follows it on its lane, until release is called.
func (l *FaultLink) Delay(s FaultSide, p FaultPoint, n int) (struck <-chan struct{}, release func()) {
	hold := make(chan struct{})
	return l.add(s, p, n, 1, packetFault{hold: hold}), sync.OnceFunc(func() { close(hold) })
}

// Truncate loses the handles of that packet but for the first keep, as a full descriptor table
// does.
func (l *FaultLink) Truncate(s FaultSide, p FaultPoint, n, keep int) (struck <-chan struct{}) {
	return l.add(s, p, n, 1, packetFault{truncate: true, keep: keep})
}

// Refuse has the link take that packet only after refusing it some times, as a full socket does.
func (l *FaultLink) Refuse(s FaultSide, p FaultPoint, n, times int) (struck <-chan struct{}) {
	return l.add(s, p, n, times, packetFault{again: true})
}

// Corrupt sends these bytes in place of that packet's.
func (l *FaultLink) Corrupt(s FaultSide, p FaultPoint, n int, bytes []byte) (struck <-chan struct{}) {
	return l.add(s, p, n, 1, packetFault{write: bytes})
}
