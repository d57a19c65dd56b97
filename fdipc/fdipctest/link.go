package fdipctest

import (
	"strconv"
	"sync"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/fdipc/internal/fault"
)

// Side is one of the two Conns of a Link.
type Side int

const (
	A Side = iota // the first
	B             // the second
)

// Point names the packets at which a Link can interfere, by the frame they begin with.
type Point uint8

const (
	Hello   Point = iota // the handshake
	Goodbye              // of Close
	Wake                 // "look at the table"
	Frames               // frames of the application, without handles
	Handles              // frames of the application, with handles
)

// Points are all of them.
var Points = []Point{Hello, Goodbye, Wake, Frames, Handles}

func (p Point) String() string {
	names := [...]string{"hello", "goodbye", "wake", "frames", "handles"}
	if int(p) < len(names) {
		return names[p]
	}
	return "point " + strconv.Itoa(int(p))
}

func pointOf(ev fault.Event) (Point, bool) {
	switch {
	case fdipc.Kind(ev.Kind) >= fdipc.FirstUserKind && ev.Count > 0:
		return Handles, true
	case fdipc.Kind(ev.Kind) >= fdipc.FirstUserKind:
		return Frames, true
	}
	p, ok := map[uint8]Point{1: Hello, 2: Goodbye, 4: Wake}[ev.Kind]
	return p, ok
}

// Link is a link in memory with faults. The zero value has none. Faults are set before or while the
// link is used; each strikes once.
type Link struct {
	mu     sync.Mutex
	faults []*rule
}

type rule struct {
	side   Side
	point  Point
	after  int
	times  int
	action fault.Action
	struck chan struct{}
}

// Join makes the two Conns. It is called once.
func (l *Link) Join(a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
	return fdipc.PipeWith(l.strike, a, b)
}

func (l *Link) strike(ev fault.Event) fault.Action {
	p, ok := pointOf(ev)
	if !ok {
		return fault.Action{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	hit := -1
	for i, r := range l.faults {
		switch {
		case r.side != Side(ev.Side) || r.point != p:
		case r.after > 0:
			r.after--
		case hit < 0:
			hit = i
		}
	}
	if hit < 0 {
		return fault.Action{}
	}
	r := l.faults[hit]
	if r.times--; r.times <= 0 {
		l.faults = append(l.faults[:hit:hit], l.faults[hit+1:]...)
		close(r.struck)
	}
	return r.action
}

// add arms a fault for the packet of side s at point p after skipping n of them. The channel is closed when it struck.
func (l *Link) add(s Side, p Point, n, times int, act fault.Action) <-chan struct{} {
	r := &rule{s, p, n, times, act, make(chan struct{})}
	l.mu.Lock()
	l.faults = append(l.faults, r)
	l.mu.Unlock()
	return r.struck
}

// Cut ends the link just before s sends its n-th packet (from 0) at p: both sides see the other die.
func (l *Link) Cut(s Side, p Point, n int) (struck <-chan struct{}) {
	return l.add(s, p, n, 1, fault.Action{Cut: true})
}

// Delay holds that packet back, and what follows it on its lane, until release is called.
func (l *Link) Delay(s Side, p Point, n int) (struck <-chan struct{}, release func()) {
	hold := make(chan struct{})
	return l.add(s, p, n, 1, fault.Action{Hold: hold}), sync.OnceFunc(func() { close(hold) })
}

// Truncate loses the handles of that packet but for the first keep, as a full descriptor table does.
func (l *Link) Truncate(s Side, p Point, n, keep int) (struck <-chan struct{}) {
	return l.add(s, p, n, 1, fault.Action{Trunc: true, Keep: keep})
}

// Refuse has the link take that packet only after refusing it some times, as a full socket does.
func (l *Link) Refuse(s Side, p Point, n, times int) (struck <-chan struct{}) {
	return l.add(s, p, n, times, fault.Action{Again: true})
}

// Corrupt sends these bytes in place of that packet's.
func (l *Link) Corrupt(s Side, p Point, n int, bytes []byte) (struck <-chan struct{}) {
	return l.add(s, p, n, 1, fault.Action{Write: bytes})
}
