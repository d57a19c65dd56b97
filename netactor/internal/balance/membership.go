package balance

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/shm"
)

// WorkerState is one worker, over all listeners.
type WorkerState struct {
	Worker          netactor.Worker
	Memberships     map[uint64]*Membership // by listener
	Link            *fdipc.Conn            // the driver's; nil between two
	Credit          int                    // offers that its link carries at once; 1 until that is known
	offered         int
	widestWindow    int           // the largest window of its listeners
	shortOfCredit   bool          // its credit bounds it, not the windows alone
	SuspendedUntil  time.Time     // suspended until then; zero is not
	SuspendReason   uint8         // the reason of the last refusal; ReasonNone when an offer ran out
	Failures        int           // suspensions in a row
	Outage          faults.Outage // that it is suspended; it has a lock of its own
	onProbation     bool          // back from a suspension, and has claimed nothing since: one offer at a time
	reportedLoad    int           // its own word on its load; -1 when it gave none
	loadSinceReport int           // connections offered since that, less those that ended
}

// Membership is one worker at one listener, from its first Join until one of them is
// gone and its last offer is settled.
type Membership struct {
	Worker    *WorkerState
	Listener  *ListenerState // nil: the listener is not known yet
	joined    bool           // takes part
	dead      bool           // the worker is gone
	available bool           // takes part, and is not suspended; as the listener counts it
	atLimit   bool           // is able, and at its limit; as the listener counts it
	room      int            // offers that it may be given now
	owedEnds  int            // dead: ends of connections whose claim is still to be heard of
	Counts    netactor.WorkerCounts
	Counters  *shm.SharedCounters // what the worker counts itself; nil: nothing

	unlinked       bool   // the link by which it joined has ended
	finishedBefore uint64 // of counts.Finished: by earlier links, which the worker does not count

	offers    ConnList    // the longest offered first
	busyIndex int         // place in the listener's busy; -1 when it has no offers
	prev      *Membership // roundRobin's list
	next      *Membership
	inRing    bool
	index     int    // place in leastLoaded's heap, or in custom's list; -1 when not in it
	lastUse   uint64 // leastLoaded: when it was last picked
}

// finishedByWorker is how many connections the worker says in its page of counters that it has closed.
func (m *Membership) finishedByWorker() (n uint64, ok bool) {
	n, ok = m.Counters.Closed()
	return m.finishedBefore + n, ok
}

// load is what the worker has of the listener: offered, or claimed and open.
// A connection may be closed before its claim is heard of, so neither part
// alone is exact; the sum is. When it is dead only its offers are left.
func (m *Membership) load() int { return m.Counts.Offered + m.Counts.Open() }

// weight is what LeastLoaded compares: the worker's own report, or its load.
func (m *Membership) weight() int {
	if m.Worker.reportedLoad >= 0 {
		return max(0, m.Worker.reportedLoad+m.Worker.loadSinceReport)
	}
	return m.load()
}

// archive keeps the counts of a member that is dead and has nothing on offer.
func (m *Membership) archive() {
	if m.dead && m.Counts.Offered == 0 {
		addCounts(&m.Listener.goneCounts, m.Counts)
		addTimes(&m.Listener.handOver, m.Counters.Latency())
		m.Counts, m.Counters = netactor.WorkerCounts{}, nil
	}
}

// update works the room of a member out anew, after any change.
func (b *Balancer) update(m *Membership) {
	w, l := m.Worker, m.Listener
	able := m.joined && w.SuspendedUntil.IsZero()
	sated := able && l.Limits.PerWorker > 0 && m.load() >= l.Limits.PerWorker
	room := 0
	if able && !sated {
		window := l.Limits.Window
		if w.onProbation {
			window = 1
		}
		room = min(window-m.Counts.Offered, w.Credit-w.offered)
		if limit := l.Limits.PerWorker; limit > 0 {
			room = min(room, limit-m.load())
		}
		room = max(0, room)
	}
	l.available += delta(m.available, able)
	l.atLimit += delta(m.atLimit, sated)
	l.room += room - m.room
	m.available, m.atLimit, m.room = able, sated, room
	switch has := m.Counts.Offered > 0; {
	case has && m.busyIndex < 0:
		m.busyIndex = len(l.Busy)
		l.Busy = append(l.Busy, m)
	case !has && m.busyIndex >= 0:
		last := l.Busy[len(l.Busy)-1]
		l.Busy[m.busyIndex], last.busyIndex = last, m.busyIndex
		l.Busy, m.busyIndex = l.Busy[:len(l.Busy)-1], -1
	}
	l.order.update(m)
}

// delta is the change of a count of those that are so.
func delta(before, after bool) int {
	switch {
	case after && !before:
		return 1
	case before && !after:
		return -1
	}
	return 0
}

// updateAll is update for every member of a worker.
func (b *Balancer) updateAll(w *WorkerState) {
	for _, m := range w.Memberships {
		if m.Listener != nil {
			b.update(m)
		}
	}
}

// updateOffers is update after a change of what s is offered. It concerns the worker's
// other members when its credit is short, or when its report speaks for all of them: then all.
func (b *Balancer) updateOffers(m *Membership) (all bool) {
	w := m.Worker
	tight := w.Credit-w.offered < w.widestWindow
	if all = (tight || w.shortOfCredit || w.reportedLoad >= 0) && len(w.Memberships) > 1; all {
		b.updateAll(w)
	}
	w.shortOfCredit = tight
	b.update(m) // also one whose listener is removed
	return all
}
