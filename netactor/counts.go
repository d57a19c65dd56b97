package netactor

import "time"

// Counts of a listener. All but the last three only grow.
type Counts struct {
	Accepted    uint64
	Claimed     uint64 // a worker's application took it
	Reset       uint64 // the client had gone when it was to be offered again, or before it had said enough
	Dropped     uint64 // closed by us: the listener ended before a worker took it
	AtTotal     uint64 // turned away at the limit over all workers
	AtPerWorker uint64 // turned away when every worker was at its limit
	Errors      uint64 // accept failed for one connection, as ECONNABORTED
	Exhausted   uint64 // accept stopped for want of descriptors or memory
	Faults      uint64 // the user's function panicked, or picked nobody; the connection was placed all the same
	Peeked      uint64 // placed by what the client said first, see Peek
	PeekNone    uint64 // placed by the default: what the client said makes no key
	PeekLate    uint64 // placed by the default: the client had not said enough in time
	PeekOver    uint64 // placed by the default: as many as may were waiting to be peeked at
	Peeking     int    // accepted, and the client has not said enough yet
	Waiting     int    // accepted, and with no worker at the moment
	Offered     int    // with a worker, not yet settled
}

// TurnedAway is the number of connections that were refused at a limit.
func (c Counts) TurnedAway() uint64 { return c.AtTotal + c.AtPerWorker }

// Balanced reports whether every accepted connection is accounted for.
func (c Counts) Balanced() bool {
	return c.Accepted == c.Claimed+c.Reset+c.Dropped+c.TurnedAway()+uint64(c.Peeking)+uint64(c.Waiting)+uint64(c.Offered)
}

// WorkerCounts are the counts of one worker at one listener.
type WorkerCounts struct {
	Given     uint64 // offers made
	Claimed   uint64
	Refused   uint64 // by the worker, for whatever reason; some reasons follow
	NoFiles   uint64 // of those: it was out of descriptors
	Full      uint64 // of those: its queue was full
	Closed    uint64 // of those: it had closed the listener
	Returned  uint64 // not claimed in time, or unclaimed when the worker died
	Unsent    uint64 // the offer could not be sent
	Inherited uint64 // open already when it joined, from before this listener process
	Finished  uint64 // claimed or inherited, and closed by the worker
	Died      uint64 // claimed or inherited, and open when the worker died
	Offered   int    // not yet settled
}

// Open is the number of connections that the worker has claimed and not yet
// closed. While a claim is still to be heard of it may be too low.
func (c WorkerCounts) Open() int {
	return int(c.Inherited) + int(c.Claimed) - int(c.Finished) - int(c.Died)
}

// Balanced reports whether every offer is accounted for.
func (c WorkerCounts) Balanced() bool {
	return c.Given == c.Claimed+c.Refused+c.Returned+c.Unsent+uint64(c.Offered)
}

// ListenerStats is what a dispatcher knows of one listener.
type ListenerStats struct {
	Number   uint64
	Name     string
	Paused   bool `json:",omitzero"`
	Counts   Counts
	QueueAge time.Duration `json:",omitzero"` // of what waits for a worker, the longest
	HandOver HandOverTimes // of all workers
	Workers  []WorkerStats
	Gone     WorkerCounts // of workers that are no longer there, added up
}

// WorkerStats is what a dispatcher knows of one worker at one listener.
type WorkerStats struct {
	Worker    Worker
	Joined    bool          // takes part; else it has closed the listener, and still has connections
	Suspended string        `json:",omitzero"` // why it is left alone for a while; empty when it is not
	Load      int           // what LeastLoaded compares
	QueueAge  time.Duration `json:",omitzero"` // of what it was offered and has not claimed, the longest
	HandOver  HandOverTimes
	Counts    WorkerCounts
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
