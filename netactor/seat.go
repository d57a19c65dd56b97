package netactor

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// account is one worker, over all listeners.
type account struct {
	worker  Worker
	seats   map[uint64]*seat // by listener
	link    *fdipc.Conn      // the driver's; nil between two
	credit  int              // offers that its link carries at once; 1 until that is known
	offered int
	widest  int       // the largest window of its listeners
	tight   bool      // its credit bounds it, not the windows alone
	until   time.Time // suspended until then; zero is not
	why     uint8     // the reason of the last refusal; ReasonNone when an offer ran out
	strikes int       // suspensions in a row
	trouble trouble   // the driver's: that it is suspended
	trial   bool      // back from a suspension, and has claimed nothing since: one offer at a time
	report  int       // its own word on its load; -1 when it gave none
	since   int       // connections offered since that, less those that ended
}

// seat is one worker at one listener, from its first Join until one of them is
// gone and its last offer is settled.
type seat struct {
	a      *account
	l      *ledger // nil: the listener is not known yet
	joined bool    // takes part
	dead   bool    // the worker is gone
	able   bool    // takes part, and is not suspended; as the ledger counts it
	sated  bool    // is able, and at its limit; as the ledger counts it
	room   int     // offers that it may be given now
	owed   int     // dead: ends of connections whose claim is still to be heard of
	counts SeatCounts
	sheet  *sheet // what the worker counts itself; nil: nothing

	unlinked bool   // the link by which it joined has ended
	before   uint64 // of counts.Finished: by earlier links, which the worker does not count

	offers  tickets // the longest offered first
	busy    int     // place in the ledger's busy; -1 when it has no offers
	prev    *seat   // roundRobin's list
	next    *seat
	ringed  bool
	index   int    // place in leastLoaded's heap, or in custom's list; -1 when not in it
	lastUse uint64 // leastLoaded: when it was last picked
}

// ended is how many connections the worker says in its sheet that it has closed.
func (s *seat) ended() (n uint64, ok bool) {
	n, ok = s.sheet.ended()
	return s.before + n, ok
}

// load is what the worker has of the listener: offered, or claimed and open.
// A connection may be closed before its claim is heard of, so neither part
// alone is exact; the sum is. When it is dead only its offers are left.
func (s *seat) load() int { return s.counts.Offered + s.counts.Open() }

// weight is what LeastLoaded compares: the worker's own report, or its load.
func (s *seat) weight() int {
	if s.a.report >= 0 {
		return max(0, s.a.report+s.a.since)
	}
	return s.load()
}

// bury keeps the counts of a seat that is dead and has nothing on offer.
func (s *seat) bury() {
	if s.dead && s.counts.Offered == 0 {
		s.l.gone.add(s.counts)
		s.l.handOver.add(s.sheet.latency())
		s.counts, s.sheet = SeatCounts{}, nil
	}
}

// update works the room of a seat out anew, after any change.
func (b *books) update(s *seat) {
	a, l := s.a, s.l
	able := s.joined && a.until.IsZero()
	sated := able && l.limits.PerWorker > 0 && s.load() >= l.limits.PerWorker
	room := 0
	if able && !sated {
		window := l.limits.Window
		if a.trial {
			window = 1
		}
		room = min(window-s.counts.Offered, a.credit-a.offered)
		if limit := l.limits.PerWorker; limit > 0 {
			room = min(room, limit-s.load())
		}
		room = max(0, room)
	}
	l.able += step(s.able, able)
	l.sated += step(s.sated, sated)
	l.room += room - s.room
	s.able, s.sated, s.room = able, sated, room
	switch has := s.counts.Offered > 0; {
	case has && s.busy < 0:
		s.busy = len(l.busy)
		l.busy = append(l.busy, s)
	case !has && s.busy >= 0:
		last := l.busy[len(l.busy)-1]
		l.busy[s.busy], last.busy = last, s.busy
		l.busy, s.busy = l.busy[:len(l.busy)-1], -1
	}
	l.order.update(s)
}

// step is the change of a count of those that are so.
func step(before, after bool) int {
	switch {
	case after && !before:
		return 1
	case before && !after:
		return -1
	}
	return 0
}

// updateAll is update for every seat of a worker.
func (b *books) updateAll(a *account) {
	for _, s := range a.seats {
		if s.l != nil {
			b.update(s)
		}
	}
}

// updateOffers is update after a change of what s is offered. It concerns the worker's
// other seats when its credit is short, or when its report speaks for all of them: then all.
func (b *books) updateOffers(s *seat) (all bool) {
	a := s.a
	tight := a.credit-a.offered < a.widest
	if all = (tight || a.tight || a.report >= 0) && len(a.seats) > 1; all {
		b.updateAll(a)
	}
	a.tight = tight
	b.update(s) // also one whose listener is off the books
	return all
}
