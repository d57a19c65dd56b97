package balance

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/shm"
)

// WorkerState is one worker, over all its listeners.
type WorkerState struct {
	Worker          netactor.Worker
	Memberships     map[uint64]*Membership // by listener
	Link            *fdipc.Conn            // used by Dispatcher; nil between two links
	Credit          int                    // offers that its link carries at once; 1 until known
	offered         int
	widestWindow    int           // the largest window of its listeners
	shortOfCredit   bool          // its credit limits its room, not the windows alone
	SuspendedUntil  time.Time     // the end of its suspension; zero if not suspended
	SuspendReason   uint8         // the reason of the last refusal; ReasonNone if an offer was not claimed in time
	Failures        int           // suspensions in a row
	Outage          faults.Outage // for the log: it is suspended; it has its own lock
	onProbation     bool          // from a suspension until its next claim: one offer at a time
	reportedLoad    int           // the load that it last reported, or netactor.None
	loadSinceReport int           // connections offered since the report, less those that ended
}

// Membership is one worker at one listener, from its first Join until the worker or the listener is
// gone and its last offer is settled.
type Membership struct {
	Worker     *WorkerState
	Listener   *ListenerState // nil if the listener is not known yet
	joined     bool           // takes part
	dead       bool           // the worker is gone
	available  bool           // takes part, and is not suspended; counted in Listener.available
	atLimit    bool           // is available, and at its limit; counted in Listener.atLimit
	pool       *poolState     // of its pool, while it takes part
	newestAble bool           // is of its pool's newest generation and takes connections; counted in pool.able
	room       int            // offers that it may get now
	owedEnds   int            // if dead: finished connections whose claims are still on their way
	Counts     netactor.WorkerCounts
	Counters   *shm.SharedCounters // what the worker counts; nil if it shares no page

	unlinked       bool   // the link by which it joined has ended
	finishedBefore uint64 // part of Counts.Finished over earlier links, which the worker does not count

	offers    ConnList    // oldest first
	busyIndex int         // index in Listener.Busy; -1 if it has no offers
	prev      *Membership // in roundRobin's ring
	next      *Membership
	inRing    bool
	index     int    // index in leastLoaded's heap, or in pickerOrder's list; -1 if it is not there
	lastUse   uint64 // leastLoaded: when it was last picked
}

// finishedByWorker returns how many connections the worker has closed, by its page of counters.
func (m *Membership) finishedByWorker() (n uint64, ok bool) {
	n, ok = m.Counters.Closed()
	return m.finishedBefore + n, ok
}

// Joined reports whether the worker takes part.
func (m *Membership) Joined() bool { return m.joined }

// load returns how many connections of the listener the worker has: offered, or claimed and open. A
// connection may be closed before its claim is known, so neither part alone is exact; the sum is. A
// dead worker has only its offers.
func (m *Membership) load() int { return m.Counts.Offered + m.Counts.Open() }

// weight returns what LeastLoaded compares: the worker's report, or its load.
func (m *Membership) weight() int {
	if m.Worker.reportedLoad >= 0 {
		return max(0, m.Worker.reportedLoad+m.Worker.loadSinceReport)
	}
	return m.load()
}

// archive adds the counts of a dead membership without offers to those of its listener.
func (m *Membership) archive() {
	if m.dead && m.Counts.Offered == 0 {
		addCounts(&m.Listener.goneCounts, m.Counts)
		addTimes(&m.Listener.handOver, m.Counters.Latency())
		m.Counts, m.Counters = netactor.WorkerCounts{}, nil
	}
}

// update computes the room of a membership again, after any change.
func (b *Balancer) update(m *Membership) {
	w, l := m.Worker, m.Listener
	able := m.joined && w.SuspendedUntil.IsZero() && !w.Worker.Alone
	sated := able && l.Limits.PerWorker > 0 && m.load() >= l.Limits.PerWorker
	changed := m.countAble(able && !sated && !w.onProbation && !m.outdated())
	room := 0
	if able && !sated && !m.yields() {
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
	if changed {
		b.updatePool(l, m.pool)
	}
}

// countAble counts in m's pool whether m is of the newest generation and takes connections. It
// returns true if that changes whether older workers yield.
func (m *Membership) countAble(able bool) (changed bool) {
	if m.pool == nil {
		m.newestAble = false
		return false
	}
	before := m.pool.able > 0
	m.pool.able += delta(m.newestAble, able)
	m.newestAble = able
	return before != (m.pool.able > 0) && len(m.pool.generations) > 1
}

// delta returns the change of a count of memberships that have a property.
func delta(before, after bool) int {
	switch {
	case after && !before:
		return 1
	case before && !after:
		return -1
	}
	return 0
}

// updateAll calls update for every membership of a worker.
func (b *Balancer) updateAll(w *WorkerState) {
	for _, m := range w.Memberships {
		if m.Listener != nil {
			b.update(m)
		}
	}
}

// updateOffers updates m after a change of its offers. all is true if it has updated the worker's
// other memberships too: the worker's credit is short, or its report covers all of them.
func (b *Balancer) updateOffers(m *Membership) (all bool) {
	w := m.Worker
	tight := w.Credit-w.offered < w.widestWindow
	if all = (tight || w.shortOfCredit || w.reportedLoad >= 0) && len(w.Memberships) > 1; all {
		b.updateAll(w)
	}
	w.shortOfCredit = tight
	b.update(m) // also if its listener is removed
	return all
}
