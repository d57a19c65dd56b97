package netactor

// listenerState is one listener.
type listenerState struct {
	number     uint64
	name       string
	limits     Limits
	order      order
	needsEnds  bool                   // to place connections it must know which have ended
	members    map[uint64]*membership // by worker
	busy       []*membership          // those that are offered something, in no order
	accepting  int                    // members that are joined
	available  int                    // of those, not suspended
	atLimit    int                    // of those, at their limit
	room       int                    // sum over members
	load       int                    // connections of all workers, and those that wait
	waiting    connList
	paused     bool
	counts     Counts
	fault      string        // what the user's function panicked with, until the driver has said so
	goneCounts WorkerCounts  // of the workers that are no longer there, added up
	handOver   HandOverTimes // likewise
}

// joinedCount is how many workers take part.
func (l *listenerState) joinedCount() int { return l.accepting }

// canAccept is how many connections may be accepted now.
func (l *listenerState) canAccept() int {
	if l.paused || l.waiting.head != nil {
		return 0
	}
	n := l.room
	if t := l.limits.Total; t > 0 {
		n = min(n, t-l.load)
	}
	return max(0, n)
}

// limit is a limit that keeps connections out.
type limit uint8

const (
	limitNone limit = iota
	limitTotal
	limitPerWorker
)

// limitReached reports the limit for which new connections are to be refused, rather than
// to wait. Where nobody is able to take any they wait, as everywhere.
func (l *listenerState) limitReached() limit {
	switch {
	case l.limits.AtLimit == WaitAtLimit || l.paused:
	case l.limits.Total > 0 && l.load >= l.limits.Total:
		return limitTotal
	case l.available > 0 && l.atLimit == l.available:
		return limitPerWorker
	}
	return limitNone
}

// countTurnedAway counts a connection that was accepted and turned away.
func (l *listenerState) countTurnedAway(by limit) {
	l.counts.Accepted++
	if by == limitTotal {
		l.counts.AtTotal++
	} else {
		l.counts.AtPerWorker++
	}
}

func (l *listenerState) enqueue(p *pendingConn) {
	l.counts.Waiting++
	l.waiting.push(p)
}
