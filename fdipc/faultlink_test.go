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

func pointOf(ev packetEvent) (FaultPoint, bool) {
	switch {
	case Kind(ev.kind) >= FirstUserKind && ev.count > 0:
		return AtHandles, true
	case Kind(ev.kind) >= FirstUserKind:
		return AtFrames, true
	}
	p, ok := map[uint8]FaultPoint{1: AtHello, 2: AtGoodbye, 4: AtWake}[ev.kind]
	return p, ok
}

// FaultLink is a link in memory with faults. The zero value has none. Faults are set before or
// while the link is used; each strikes once.
type FaultLink struct {
	mu     sync.Mutex
	faults []*faultRule
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
	return pipe(l.strike, a, b)
}

func (l *FaultLink) strike(ev packetEvent) packetFault {
	p, ok := pointOf(ev)
	if !ok {
		return packetFault{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	hit := -1
	for i, r := range l.faults {
		switch {
		case r.side != FaultSide(ev.side) || r.point != p:
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
