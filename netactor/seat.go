package netactor

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// account is one worker, over all listeners.
type account struct {
	worker  Worker
	seats   map[uint64]*seat // by listener
	link    *fdipc.Conn      // the driver's
	credit  int              // offers that its link carries at once; 1 until that is known
	offered int
	until   time.Time // suspended until then; zero is not
	strikes int       // suspensions in a row
	trial   bool      // back from a suspension, and has claimed nothing since: one offer at a time
}

// ledger is one listener.
type ledger struct {
	number  uint64
	name    string
	limits  Limits
	order   order
	seats   map[uint64]*seat // by worker
	room    int              // sum over seats
	load    int              // connections of all workers, and those that wait
	waiting queue
	paused  bool
	closed  bool // off the books: what comes back is to be dropped
	counts  Counts
	gone    SeatCounts // of the workers that are no longer there, added up
}

// seat is one worker at one listener, from its first Join until one of them is
// gone and its last offer is settled.
type seat struct {
	a      *account
	l      *ledger // nil: the listener is not known yet
	joined bool    // takes part
	dead   bool    // the worker is gone
	base   int     // connections it had open when it joined
	room   int     // offers that it may be given now
	counts SeatCounts

	prev, next *seat  // roundRobin's list
	index      int    // leastLoaded's heap; -1 when not in it
	turn       uint64 // leastLoaded: when it was last picked
}

// load is what the worker has of the listener: offered, or claimed and open.
// A connection may be closed before its claim is heard of, so neither part
// alone is exact; the sum is. When it is dead only its offers are left.
func (s *seat) load() int {
	return s.counts.Offered + s.base + int(s.counts.Claimed) - int(s.counts.Finished) - int(s.counts.Died)
}

// bury keeps the counts of a seat that is dead and has nothing on offer.
func (s *seat) bury() {
	if s.dead && s.counts.Offered == 0 {
		s.l.gone.add(s.counts)
		s.counts = SeatCounts{}
	}
}

// update works the room of a seat out anew, after any change.
func (b *books) update(s *seat) {
	room := 0
	if a := s.a; s.joined && a.until.IsZero() {
		window := s.l.limits.Window
		if a.trial {
			window = 1
		}
		room = min(window-s.counts.Offered, a.credit-a.offered)
		if limit := s.l.limits.PerWorker; limit > 0 {
			room = min(room, limit-s.load())
		}
		room = max(0, room)
	}
	s.l.room += room - s.room
	s.room = room
	s.l.order.update(s)
}

// updateAll is update for every seat of a worker.
func (b *books) updateAll(a *account) {
	for _, s := range a.seats {
		if s.l != nil {
			b.update(s)
		}
	}
}

// joined is how many workers take part.
func (l *ledger) joined() (n int) {
	for _, s := range l.seats {
		if s.joined {
			n++
		}
	}
	return n
}

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

func (l *ledger) wait(t *ticket) {
	l.counts.Waiting++
	l.waiting.push(t)
}
