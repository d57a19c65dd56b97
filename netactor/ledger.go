package netactor

// ledger is one listener.
type ledger struct {
	number    uint64
	name      string
	limits    Limits
	order     order
	needsEnds bool             // to place connections it must know which have ended
	seats     map[uint64]*seat // by worker
	busy      []*seat          // those that are offered something, in no order
	taking    int              // seats that are joined
	able      int              // of those, not suspended
	sated     int              // of those, at their limit
	room      int              // sum over seats
	load      int              // connections of all workers, and those that wait
	waiting   tickets
	paused    bool
	counts    Counts
	fault     string     // what the user's function panicked with, until the driver has said so
	gone      SeatCounts // of the workers that are no longer there, added up
	handOver  Histogram  // likewise
}

// joined is how many workers take part.
func (l *ledger) joined() int { return l.taking }

// admits is how many connections may be accepted now.
func (l *ledger) admits() int {
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

// turnsAway reports the limit for which new connections are to be refused, rather than
// to wait. Where nobody is able to take any they wait, as everywhere.
func (l *ledger) turnsAway() limit {
	switch {
	case l.limits.AtLimit == WaitAtLimit || l.paused:
	case l.limits.Total > 0 && l.load >= l.limits.Total:
		return limitTotal
	case l.able > 0 && l.sated == l.able:
		return limitPerWorker
	}
	return limitNone
}

// refused counts a connection that was accepted and turned away.
func (l *ledger) refused(by limit) {
	l.counts.Accepted++
	if by == limitTotal {
		l.counts.AtTotal++
	} else {
		l.counts.AtPerWorker++
	}
}

func (l *ledger) wait(t *ticket) {
	l.counts.Waiting++
	l.waiting.push(t)
}
