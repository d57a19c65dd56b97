package netactor

import (
	"cmp"
	"slices"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// countPeek counts what came of peeking at a connection that is to be placed.
func countPeek(c *Counts, s peekState) {
	switch s {
	case peekKey:
		c.Peeked++
	case peekNoKey:
		c.PeekNone++
	case peekTimedOut:
		c.PeekLate++
	case peekTooMany:
		c.PeekOver++
	case peekNotNeeded, peekIncomplete, peekReset:
	}
}

// countRefused counts an offer that a worker has refused.
func countRefused(c *WorkerCounts, reason uint8) {
	c.Refused++
	switch reason {
	case fdipc.ReasonNoFiles:
		c.NoFiles++
	case fdipc.ReasonOverload, ReasonFull:
		c.Full++
	case fdipc.ReasonClosed, ReasonClosed:
		c.Closed++
	}
}

// addCounts adds o to c.
func addCounts(c *WorkerCounts, o WorkerCounts) {
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

func (l *listenerState) stats(now int64) ListenerStats {
	st := ListenerStats{
		Number: l.number, Name: l.name, Paused: l.paused, Counts: l.counts,
		QueueAge: time.Duration(l.waiting.age(now)), HandOver: l.handOver, Gone: l.goneCounts,
	}
	for _, m := range l.members {
		w := WorkerStats{
			Worker: m.worker.worker, Joined: m.joined, Load: m.weight(), Counts: m.counts,
			QueueAge: time.Duration(m.offers.age(now)), HandOver: m.counters.latency(),
		}
		if !m.worker.suspendedUntil.IsZero() {
			w.Suspended = suspendedText(m.worker.suspendReason)
		}
		addTimes(&st.HandOver, w.HandOver)
		st.Workers = append(st.Workers, w)
	}
	slices.SortFunc(st.Workers, func(a, b WorkerStats) int { return cmp.Compare(a.Worker.ID, b.Worker.ID) })
	return st
}

// addTimes adds o to h.
func addTimes(h *HandOverTimes, o HandOverTimes) {
	for i, n := range o {
		h[i] += n
	}
}
