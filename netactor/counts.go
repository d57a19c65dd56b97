package netactor

import (
	"cmp"
	"slices"
)

// Counts of a listener. All but the last two only grow.
type Counts struct {
	Accepted  uint64
	Claimed   uint64 // a worker's application took it
	Reset     uint64 // the client had gone when it was to be offered again
	Dropped   uint64 // closed by us: the listener ended before a worker took it
	Errors    uint64 // accept failed for one connection, as ECONNABORTED
	Exhausted uint64 // accept stopped for want of descriptors or memory
	Waiting   int    // accepted, and with no worker at the moment
	Offered   int    // with a worker, not yet settled
}

// Balanced reports whether every accepted connection is accounted for.
func (c Counts) Balanced() bool {
	return c.Accepted == c.Claimed+c.Reset+c.Dropped+uint64(c.Waiting)+uint64(c.Offered)
}

// SeatCounts are the counts of one worker at one listener. Open counts
// connections that were handed over by this dispatcher.
type SeatCounts struct {
	Given    uint64 // offers made
	Claimed  uint64
	Refused  uint64
	Returned uint64 // not claimed in time, or unclaimed when the worker died
	Unsent   uint64 // the offer could not be sent
	Finished uint64 // claimed, and closed by the worker
	Died     uint64 // claimed, and not known to be closed when the worker died: ends of the last millisecond may be among them
	Offered  int    // not yet settled
}

// Open is the number of connections that the worker has claimed and not yet
// closed. While a claim is still to be heard of it may be too low.
func (c SeatCounts) Open() int { return int(c.Claimed) - int(c.Finished) - int(c.Died) }

// Balanced reports whether every offer is accounted for.
func (c SeatCounts) Balanced() bool {
	return c.Given == c.Claimed+c.Refused+c.Returned+c.Unsent+uint64(c.Offered)
}

func (c *SeatCounts) add(o SeatCounts) {
	c.Given += o.Given
	c.Claimed += o.Claimed
	c.Refused += o.Refused
	c.Returned += o.Returned
	c.Unsent += o.Unsent
	c.Finished += o.Finished
	c.Died += o.Died
	c.Offered += o.Offered
}

// ListenerStats is what a dispatcher knows of one listener.
type ListenerStats struct {
	Number  uint64
	Name    string
	Paused  bool `json:",omitzero"`
	Counts  Counts
	Workers []WorkerStats
	Gone    SeatCounts // of workers that are no longer there, added up
}

// WorkerStats is what a dispatcher knows of one worker at one listener.
type WorkerStats struct {
	Worker    Worker
	Joined    bool // takes part; else it has closed the listener, and still has connections
	Suspended bool `json:",omitzero"` // left alone for a while: it refused, or let an offer run out
	Counts    SeatCounts
}

// Jain is Jain's index of fairness over the claims of the workers that take
// part: 1 when all have the same, 1/n when one has everything.
func (s ListenerStats) Jain() float64 {
	var sum, squares, n float64
	for _, w := range s.Workers {
		if w.Joined {
			x := float64(w.Counts.Claimed)
			sum, squares, n = sum+x, squares+x*x, n+1
		}
	}
	if squares == 0 {
		return 1
	}
	return sum * sum / (n * squares)
}

// Stats returns the counts of all listeners, by number; the workers of each by
// ID.
func (d *Dispatcher) Stats() []ListenerStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]ListenerStats, 0, len(d.acceptors))
	for _, a := range d.acceptors {
		out = append(out, a.l.stats())
	}
	slices.SortFunc(out, func(a, b ListenerStats) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

func (l *ledger) stats() ListenerStats {
	st := ListenerStats{Number: l.number, Name: l.name, Paused: l.paused, Counts: l.counts, Gone: l.gone}
	for _, s := range l.seats {
		st.Workers = append(st.Workers, WorkerStats{
			Worker: s.a.worker, Joined: s.joined, Suspended: !s.a.until.IsZero(), Counts: s.counts,
		})
	}
	slices.SortFunc(st.Workers, func(a, b WorkerStats) int { return cmp.Compare(a.Worker.ID, b.Worker.ID) })
	return st
}
