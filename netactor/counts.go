package netactor

import "time"

// Counts are the counts of a listener. All but the last four only grow.
type Counts struct {
	Accepted    uint64
	GivenBack   uint64 // given back by a worker between two requests; parked then
	Resumed     uint64 // the client of one that was parked has sent its next request; offered then
	Claimed     uint64 // claimed by a worker's application
	Reset       uint64 // the client left before the connection was offered again, or before it had sent enough
	Dropped     uint64 // closed here: the listener ended, or refused clients, before a worker claimed it
	AtTotal     uint64 // turned away at the limit over all workers
	AtPerWorker uint64 // turned away when every worker was at its limit
	Quarantined uint64 // turned away: their first bytes have killed workers, see Functions.PoisonKey
	Errors      uint64 // accept failed for one connection, as with ECONNABORTED
	Exhausted   uint64 // accept stopped for want of descriptors or memory
	Faults      uint64 // the user's function panicked, or picked no worker; the connection was placed without it
	Peeked      uint64 // placed by the first bytes from the client, see Peek
	PeekNone    uint64 // placed by the default: the first bytes have no key
	PeekLate    uint64 // placed by the default: the client did not send enough in time
	PeekOver    uint64 // placed by the default: too many connections were peeking already
	ParkedLeft  uint64 // the client closed or reset it while it was parked
	ParkedIdle  uint64 // closed here while it was parked: its server's idle timeout
	ParkedOver  uint64 // closed here while it was parked, as the oldest of too many
	Passed      uint64 // passed on, while it was parked, to the listener process that has taken over
	Peeking     int    // accepted, and the client has not sent enough yet
	Waiting     int    // accepted, and not offered to a worker now
	Offered     int    // offered to a worker, not yet settled
	Parked      int    // given back, and its client has sent no other request yet
}

// TurnedAway returns the number of connections that were refused, at a limit or by their first
// bytes.
func (c Counts) TurnedAway() uint64 { return c.AtTotal + c.AtPerWorker + c.Quarantined }

// Balanced reports whether every connection is accounted for that was accepted or given back.
func (c Counts) Balanced() bool {
	return c.Accepted+c.GivenBack == c.Claimed+c.Reset+c.Dropped+c.TurnedAway()+c.ParkedLeft+c.ParkedIdle+c.ParkedOver+c.Passed+
		uint64(c.Peeking)+uint64(c.Waiting)+uint64(c.Offered)+uint64(c.Parked)
}

// WorkerCounts are the counts of one worker at one listener.
type WorkerCounts struct {
	Given     uint64 // offers made
	Claimed   uint64
	Refused   uint64 // by the worker, for any reason; some reasons follow
	NoFiles   uint64 // of those: it was out of descriptors
	Full      uint64 // of those: its queue was full
	Closed    uint64 // of those: it had closed the listener
	Returned  uint64 // not claimed in time, or not claimed when the worker died
	Unsent    uint64 // the offer could not be sent
	Inherited uint64 // open when the worker joined, from an earlier listener process
	Finished  uint64 // claimed or inherited, and closed by the worker
	Died      uint64 // claimed or inherited, and open when the worker died
	Offered   int    // not yet settled
}

// Open returns the number of connections that the worker has claimed and not yet closed. It may be
// too low while a claim is still on its way.
func (c WorkerCounts) Open() int {
	return int(c.Inherited) + int(c.Claimed) - int(c.Finished) - int(c.Died)
}

// Balanced reports whether every offer is accounted for.
func (c WorkerCounts) Balanced() bool {
	return c.Given == c.Claimed+c.Refused+c.Returned+c.Unsent+uint64(c.Offered)
}

// ListenerStats is what a dispatcher knows about one listener.
type ListenerStats struct {
	Number   uint64
	Name     string
	Paused   bool `json:",omitzero"`
	Counts   Counts
	QueueAge time.Duration `json:",omitzero"` // the longest wait of a connection that has no worker
	HandOver HandOverTimes // of all workers

	// PerWorker is the limit, 0 if there is none. Backlog is how many connections are in the
	// kernel's queue, not accepted yet; only of TCP, on Linux.
	PerWorker int `json:",omitzero"`
	Backlog   int `json:",omitzero"`

	Workers []WorkerStats
	Gone    WorkerCounts // sum over the workers that are gone
}

// WorkerStats is what a dispatcher knows about one worker at one listener.
type WorkerStats struct {
	Worker    Worker
	Joined    bool          // takes part; false: it closed the listener and still has connections
	Suspended string        `json:",omitzero"` // why it gets no offers for a while; empty if it gets them
	Load      int           // what LeastLoaded compares
	QueueAge  time.Duration `json:",omitzero"` // the longest wait of an offer that it has not claimed
	HandOver  HandOverTimes
	Counts    WorkerCounts
}

// Jain returns Jain's index of fairness over the claims of the workers that take part: 1 if all
// have the same number, 1/n if one worker has all.
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
