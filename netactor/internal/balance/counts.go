package balance

import (
	"cmp"
	"slices"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// CountPeek counts the result of peeking at a connection that is to be placed.
func CountPeek(c *netactor.Counts, s PeekState) {
	switch s {
	case PeekKey:
		c.Peeked++
	case PeekNoKey:
		c.PeekNone++
	case PeekTimedOut:
		c.PeekLate++
	case PeekTooMany:
		c.PeekOver++
	case PeekNotNeeded, PeekIncomplete, PeekReset, PeekRefused:
	}
}

// countRefused counts an offer that a worker has refused.
func countRefused(c *netactor.WorkerCounts, reason uint8) {
	c.Refused++
	switch reason {
	case fdipc.ReasonNoFiles:
		c.NoFiles++
	case fdipc.ReasonOverload, wire.ReasonFull:
		c.Full++
	case fdipc.ReasonClosed, wire.ReasonClosed:
		c.Closed++
	}
}

// addCounts adds o to c.
func addCounts(c *netactor.WorkerCounts, o netactor.WorkerCounts) {
	c.Given += o.Given
	c.Claimed += o.Claimed
	c.Refused += o.Refused
	c.NoFiles += o.NoFiles
	c.Full += o.Full
	c.Closed += o.Closed
	c.Returned += o.Returned
	c.Unsent += o.Unsent
	c.Inherited += o.Inherited
	c.Finished += o.Finished
	c.Died += o.Died
	c.Offered += o.Offered
}

// Stats returns the counts of the listener and of its workers. now is the time on the machine's
// monotonic clock, in nanoseconds.
func (l *ListenerState) Stats(now int64) netactor.ListenerStats {
	st := netactor.ListenerStats{
		Number: l.Number, Name: l.Name, Paused: l.Paused, Counts: l.Counts,
		QueueAge: time.Duration(l.waiting.age(now)), HandOver: l.handOver, PerWorker: l.Limits.PerWorker, Gone: l.goneCounts,
	}
	for _, m := range l.Members {
		w := netactor.WorkerStats{
			Worker: m.Worker.Worker, Joined: m.joined, Load: m.weight(), Counts: m.Counts,
			QueueAge: time.Duration(m.offers.age(now)), HandOver: m.Counters.Latency(),
		}
		if !m.Worker.SuspendedUntil.IsZero() {
			w.Suspended = SuspendedText(m.Worker.SuspendReason)
		}
		addTimes(&st.HandOver, w.HandOver)
		st.Workers = append(st.Workers, w)
	}
	slices.SortFunc(st.Workers, func(a, b netactor.WorkerStats) int { return cmp.Compare(a.Worker.ID, b.Worker.ID) })
	return st
}

// addTimes adds o to h.
func addTimes(h *netactor.HandOverTimes, o netactor.HandOverTimes) {
	for i, n := range o {
		h[i] += n
	}
}
