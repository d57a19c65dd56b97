package balance

import "github.com/coppice-go/coppice/netactor"

// ListenerState is one listener.
type ListenerState struct {
	Number     uint64
	Name       string
	Limits     netactor.Limits
	order      order
	NeedsEnds  bool                   // to place connections it must know which have ended
	Members    map[uint64]*Membership // by worker
	Busy       []*Membership          // those that are offered something, in no order
	accepting  int                    // members that are joined
	available  int                    // of those, not suspended
	atLimit    int                    // of those, at their limit
	room       int                    // sum over members
	Load       int                    // connections of all workers, and those that wait
	waiting    ConnList
	Paused     bool
	Counts     netactor.Counts
	Fault      string                 // what the user's function panicked with, until the driver has said so
	goneCounts netactor.WorkerCounts  // of the workers that are no longer there, added up
	handOver   netactor.HandOverTimes // likewise
}

// JoinedCount is how many workers take part.
func (l *ListenerState) JoinedCount() int { return l.accepting }

// CanAccept is how many connections may be accepted now.
func (l *ListenerState) CanAccept() int {
	if l.Paused || l.waiting.Head != nil {
		return 0
	}
	n := l.room
	if t := l.Limits.Total; t > 0 {
		n = min(n, t-l.Load)
	}
	return max(0, n)
}

// Limit is a limit that keeps connections out.
type Limit uint8

const (
	LimitNone Limit = iota
	limitTotal
	limitPerWorker
)

// LimitReached reports the limit for which new connections are to be refused, rather than
// to wait. Where nobody is able to take any they wait, as everywhere.
func (l *ListenerState) LimitReached() Limit {
	switch {
	case l.Limits.AtLimit == netactor.WaitAtLimit || l.Paused:
	case l.Limits.Total > 0 && l.Load >= l.Limits.Total:
		return limitTotal
	case l.available > 0 && l.atLimit == l.available:
		return limitPerWorker
	}
	return LimitNone
}

// CountTurnedAway counts a connection that was accepted and turned away.
func (l *ListenerState) CountTurnedAway(by Limit) {
	l.Counts.Accepted++
	if by == limitTotal {
		l.Counts.AtTotal++
	} else {
		l.Counts.AtPerWorker++
	}
}

func (l *ListenerState) enqueue(p *PendingConn) {
	l.Counts.Waiting++
	l.waiting.Push(p)
}
