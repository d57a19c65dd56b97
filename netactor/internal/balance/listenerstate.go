package balance

import "github.com/coppice-go/coppice/netactor"

// ListenerState is one listener.
type ListenerState struct {
	Number     uint64
	Name       string
	Limits     netactor.Limits
	order      order
	NeedsEnds  bool                   // its policy or its limits need to know when connections end
	Members    map[uint64]*Membership // by worker
	pools      map[string]*poolState
	Busy       []*Membership // memberships with offers, in no order
	accepting  int           // memberships that are joined
	available  int           // of accepting: not suspended
	atLimit    int           // of available: at their limit
	room       int           // sum over memberships
	Load       int           // connections that peek, wait, are offered or are open
	waiting    ConnList
	Paused     bool
	Refuses    bool // clients are turned away, not kept in the backlog
	Counts     netactor.Counts
	Fault      string                 // the failure of the user's function, until Dispatcher has reported it
	goneCounts netactor.WorkerCounts  // sum over the workers that are gone
	handOver   netactor.HandOverTimes // the same sum of hand-overs
}

// JoinedCount returns how many workers take part.
func (l *ListenerState) JoinedCount() int { return l.accepting }

// CanAccept returns how many connections may be accepted now.
func (l *ListenerState) CanAccept() int {
	if l.Paused || l.Refuses || l.waiting.Head != nil {
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
	LimitRefuses // none are taken at all
)

// LimitReached returns the limit for which new connections are turned away. PerWorker turns none
// away while no worker is available: they wait.
func (l *ListenerState) LimitReached() Limit {
	switch {
	case l.Refuses:
		return LimitRefuses
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
	switch by {
	case limitTotal:
		l.Counts.AtTotal++
	case LimitRefuses:
		l.Counts.Dropped++
	default:
		l.Counts.AtPerWorker++
	}
}

func (l *ListenerState) enqueue(p *PendingConn) {
	l.Counts.Waiting++
	l.waiting.Push(p)
}
