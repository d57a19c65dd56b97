package balance

import (
	"fmt"
	"net/netip"

	"github.com/coppice-go/coppice/netactor"
)

// pickerOrder asks the user's Picker. It keeps the Picker's view of the memberships up to date, so
// that a call costs O(1), whatever the Picker does.
type pickerOrder struct {
	l       *ListenerState
	picker  netactor.Picker
	members []*Membership
	loads   []netactor.Load // of members, at the same index
	free    roundRobin      // the same memberships, for when the Picker fails
}

func (c *pickerOrder) join(*Membership)  {}
func (c *pickerOrder) leave(*Membership) {}

func (c *pickerOrder) update(m *Membership) {
	c.free.update(m)
	switch in := m.index >= 0; {
	case m.room > 0 && !in:
		m.index = len(c.members)
		c.members, c.loads = append(c.members, m), append(c.loads, m.asLoad())
	case m.room > 0:
		c.loads[m.index] = m.asLoad()
	case in:
		last := len(c.members) - 1
		c.members[m.index], c.loads[m.index] = c.members[last], c.loads[last]
		c.members[m.index].index = m.index
		c.members[last] = nil
		c.members, c.loads = c.members[:last], c.loads[:last]
		m.index = -1
	}
}

// asLoad returns what a Picker sees of m.
func (m *Membership) asLoad() netactor.Load {
	return netactor.Load{Worker: m.Worker.Worker, Offered: m.Counts.Offered, Open: m.Counts.Open(), Reported: m.Worker.reportedLoad, Room: m.room}
}

func (c *pickerOrder) pick(p *PendingConn) *Membership {
	if len(c.members) == 0 {
		return nil
	}
	if i := c.callPicker(p.Peer); i >= 0 {
		return c.members[i]
	}
	return c.free.pick(p)
}

// callPicker returns the Picker's choice, or -1 if the Picker fails.
func (c *pickerOrder) callPicker(peer netip.AddrPort) (i int) {
	defer func() {
		if p := recover(); p != nil {
			c.l.recordFault(p)
			i = -1
		}
	}()
	i = c.picker.Pick(peer, c.loads)
	if i < 0 || i >= len(c.members) {
		c.l.recordFault(fmt.Sprintf("picked %d of %d", i, len(c.members)))
		return -1
	}
	return i
}

// recordFault counts a failure of the user's function, and keeps it for Dispatcher to report.
func (l *ListenerState) recordFault(what any) {
	l.Counts.Faults++
	l.Fault = fmt.Sprint(what)
}
