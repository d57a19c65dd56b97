package netactor

import (
	"fmt"
	"net/netip"
)

// Functions are what a user adds to a policy. They are never sent: the process that
// accepts finds its own, see [DispatcherConfig]. They run there, Picker and Key under the dispatcher's
// lock: they must be quick, must not block, and must not call the dispatcher. One
// that panics is counted and reported, and the connection is placed without it.
type Functions struct {
	Picker Picker    // of policy Custom
	Key    KeyFunc   // of policy Hash; nil: the client's IP address
	First  FirstFunc // of policy Hash with Peek.By PeekFirst

	// Control is called in the master, and not where connections are accepted: see [TableConfig].
	Control ControlFunc
}

// KeyFunc says what Hash places a connection by: those with equal keys go to one
// worker, while it has room. peer is the client's address and local the one it
// connected to; both are the zero value for a Unix socket.
type KeyFunc func(peer, local netip.AddrPort) uint64

// Picker chooses a worker for one connection. A Picker is used by one goroutine at a
// time, but possibly for several listeners.
type Picker interface {
	// Pick returns an index into free, which is never empty, is in no order, and is borrowed
	// until Pick returns. peer is the client's address; the zero value for a
	// Unix socket. An index out of range counts as a fault, and is taken for whoever was
	// picked the longest ago.
	Pick(peer netip.AddrPort, free []Load) int
}

// Load is what a Picker sees of a worker that has room.
type Load struct {
	Worker   Worker
	Offered  int // connections offered to it and not yet claimed, of this listener
	Open     int // connections it has claimed and not yet closed, of this listener
	Reported int // its own word on its load, of all it does; -1 when it gave none
	Room     int // connections it may be offered now
}

// custom asks the user's Picker. What the Picker sees is kept up to date, so that asking
// costs O(1), whatever the Picker makes of it.
type custom struct {
	l      *ledger
	picker Picker
	seats  []*seat
	loads  []Load     // of seats
	free   roundRobin // the same, for want of a pick
}

func (c *custom) join(*seat)  {}
func (c *custom) leave(*seat) {}

func (c *custom) update(s *seat) {
	c.free.update(s)
	switch in := s.index >= 0; {
	case s.room > 0 && !in:
		s.index = len(c.seats)
		c.seats, c.loads = append(c.seats, s), append(c.loads, s.seen())
	case s.room > 0:
		c.loads[s.index] = s.seen()
	case in:
		last := len(c.seats) - 1
		c.seats[s.index], c.loads[s.index] = c.seats[last], c.loads[last]
		c.seats[s.index].index = s.index
		c.seats[last] = nil
		c.seats, c.loads = c.seats[:last], c.loads[:last]
		s.index = -1
	}
}

// seen is what a Picker sees of s.
func (s *seat) seen() Load {
	return Load{Worker: s.a.worker, Offered: s.counts.Offered, Open: s.counts.Open(), Reported: s.a.report, Room: s.room}
}

func (c *custom) pick(t *ticket) *seat {
	if len(c.seats) == 0 {
		return nil
	}
	if i := c.ask(t.peer); i >= 0 {
		return c.seats[i]
	}
	return c.free.pick(t)
}

// ask returns the Picker's choice, or -1.
func (c *custom) ask(peer netip.AddrPort) (i int) {
	defer func() {
		if p := recover(); p != nil {
			c.l.faulty(p)
			i = -1
		}
	}()
	i = c.picker.Pick(peer, c.loads)
	if i < 0 || i >= len(c.seats) {
		c.l.faulty(fmt.Sprintf("picked %d of %d", i, len(c.seats)))
		return -1
	}
	return i
}

// faulty counts a failure of the user's function, and keeps it for the driver to report.
func (l *ledger) faulty(what any) {
	l.counts.Faults++
	l.fault = fmt.Sprint(what)
}
