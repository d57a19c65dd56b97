package netactor

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// workerState is one worker, over all listeners.
type workerState struct {
	worker          Worker
	memberships     map[uint64]*membership // by listener
	link            *fdipc.Conn            // the driver's; nil between two
	credit          int                    // offers that its link carries at once; 1 until that is known
	offered         int
	widestWindow    int       // the largest window of its listeners
	shortOfCredit   bool      // its credit bounds it, not the windows alone
	suspendedUntil  time.Time // suspended until then; zero is not
	suspendReason   uint8     // the reason of the last refusal; ReasonNone when an offer ran out
	failures        int       // suspensions in a row
	outage          outage    // that it is suspended; it has a lock of its own
	onProbation     bool      // back from a suspension, and has claimed nothing since: one offer at a time
	reportedLoad    int       // its own word on its load; -1 when it gave none
	loadSinceReport int       // connections offered since that, less those that ended
}

// membership is one worker at one listener, from its first Join until one of them is
// gone and its last offer is settled.
type membership struct {
	worker    *workerState
	listener  *listenerState // nil: the listener is not known yet
	joined    bool           // takes part
	dead      bool           // the worker is gone
	available bool           // takes part, and is not suspended; as the listener counts it
	atLimit   bool           // is able, and at its limit; as the listener counts it
	room      int            // offers that it may be given now
	owedEnds  int            // dead: ends of connections whose claim is still to be heard of
	counts    WorkerCounts
	counters  *sharedCounters // what the worker counts itself; nil: nothing

	unlinked       bool   // the link by which it joined has ended
	finishedBefore uint64 // of counts.Finished: by earlier links, which the worker does not count

	offers    connList    // the longest offered first
	busyIndex int         // place in the listener's busy; -1 when it has no offers
	prev      *membership // roundRobin's list
	next      *membership
	inRing    bool
	index     int    // place in leastLoaded's heap, or in custom's list; -1 when not in it
	lastUse   uint64 // leastLoaded: when it was last picked
}

// finishedByWorker is how many connections the worker says in its page of counters that it has closed.
func (m *membership) finishedByWorker() (n uint64, ok bool) {
	n, ok = m.counters.closed()
	return m.finishedBefore + n, ok
}

// load is what the worker has of the listener: offered, or claimed and open.
// A connection may be closed before its claim is heard of, so neither part
// alone is exact; the sum is. When it is dead only its offers are left.
func (m *membership) load() int { return m.counts.Offered + m.counts.Open() }

// weight is what LeastLoaded compares: the worker's own report, or its load.
func (m *membership) weight() int {
	if m.worker.reportedLoad >= 0 {
		return max(0, m.worker.reportedLoad+m.worker.loadSinceReport)
	}
	return m.load()
}

// archive keeps the counts of a member that is dead and has nothing on offer.
func (m *membership) archive() {
	if m.dead && m.counts.Offered == 0 {
		addCounts(&m.listener.goneCounts, m.counts)
		addTimes(&m.listener.handOver, m.counters.latency())
		m.counts, m.counters = WorkerCounts{}, nil
	}
}

// update works the room of a member out anew, after any change.
func (b *balancer) update(m *membership) {
	w, l := m.worker, m.listener
	able := m.joined && w.suspendedUntil.IsZero()
	sated := able && l.limits.PerWorker > 0 && m.load() >= l.limits.PerWorker
	room := 0
	if able && !sated {
		window := l.limits.Window
		if w.onProbation {
			window = 1
		}
		room = min(window-m.counts.Offered, w.credit-w.offered)
		if limit := l.limits.PerWorker; limit > 0 {
			room = min(room, limit-m.load())
		}
		room = max(0, room)
	}
	l.available += delta(m.available, able)
	l.atLimit += delta(m.atLimit, sated)
	l.room += room - m.room
	m.available, m.atLimit, m.room = able, sated, room
	switch has := m.counts.Offered > 0; {
	case has && m.busyIndex < 0:
		m.busyIndex = len(l.busy)
		l.busy = append(l.busy, m)
	case !has && m.busyIndex >= 0:
		last := l.busy[len(l.busy)-1]
		l.busy[m.busyIndex], last.busyIndex = last, m.busyIndex
		l.busy, m.busyIndex = l.busy[:len(l.busy)-1], -1
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
func (b *balancer) updateAll(w *workerState) {
	for _, m := range w.memberships {
		if m.listener != nil {
			b.update(m)
		}
	}
}

// updateOffers is update after a change of what s is offered. It concerns the worker's
// other members when its credit is short, or when its report speaks for all of them: then all.
func (b *balancer) updateOffers(m *membership) (all bool) {
	w := m.worker
	tight := w.credit-w.offered < w.widestWindow
	if all = (tight || w.shortOfCredit || w.reportedLoad >= 0) && len(w.memberships) > 1; all {
		b.updateAll(w)
	}
	w.shortOfCredit = tight
	b.update(m) // also one whose listener is removed
	return all
}
