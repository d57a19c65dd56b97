package rules

import (
	"container/list"
	"slices"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/quarantine"
)

// Time is the time since any moment that does not move.
type Time = time.Duration

// The back-off of calls that run again, and their budget: one such run for ten calls, and some more
// to begin with, so that a pool that is ill is not asked twice as much.
const (
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = time.Second
	rerunCost    = 10
	firstBudget  = 10 * rerunCost
	maxBudget    = 100 * rerunCost
)

// Config has no defaults: each field is set but for Quarantine, where nil is none.
type Config struct {
	PerWorker  int // calls that a worker runs at once
	Queue      int // calls that wait, and places that are kept, at most
	Block      bool
	Once       bool // a worker gets one call
	Quarantine *quarantine.Config
}

// A Call is what the rules know of one.
type Call struct {
	ID, From, Tenant, Key string // From is the address of the caller's process
	Timeout               time.Duration
	Grace                 time.Duration // 0 or below: its worker is killed at once
	Reruns                int           // how often it may run again after a death
	Single                bool          // it cannot be handed over a second time
}

type place uint8

const (
	waiting place = iota
	alone
	running
	later
)

type callRecord struct {
	Call
	place    place
	elem     *list.Element // waiting: in its tenant's queue
	worker   *workerRecord // running; or alone, and the worker is kept for it
	run      int           // counts the hand-overs, from 1
	deaths   int
	since    Time // it waits, or runs
	at       Time // running: the next deadline; later: when it waits again
	expired  bool // its time is over
	canceled bool // its caller no longer waits
	killing  bool // its worker is killed for it
}

type workerRecord struct {
	id      int
	calls   []*callRecord // that it runs
	kept    *callRecord   // it runs no other until that one has ended
	free    bool          // it is in State.free
	leaving bool          // or it is being killed: it gets no more
	asked   bool          // it waits until it has left
}

// never is a Time that does not come.
const never = Time(1<<63 - 1)

// State is the queue of a pool and its calls. It is for one goroutine at a time.
type State struct {
	cfg     Config
	calls   map[string]*callRecord
	workers map[int]*workerRecord
	free    []*workerRecord // that may have room, the one that is next first
	waiting turns           // *callRecord

	alone   []*callRecord // probes that wait for a worker of their own
	later   []*callRecord
	blocked turns           // Call: callers that wait for a place
	places  map[string]Call // that are kept for a caller

	table  *quarantine.State // nil: none
	budget int
	wake   Time // no deadline is before it
	now    Time
	do     []Effect
	Totals Totals
}

// Totals count calls, by what became of them.
type Totals struct {
	Taken, Answered, Expired, Killed, Died, Canceled, Full, Refused, Reruns, Blocked uint64
}

// New returns the state of a pool without workers.
func New(cfg Config) *State {
	s := &State{
		cfg: cfg, calls: map[string]*callRecord{}, workers: map[int]*workerRecord{},
		places: map[string]Call{}, budget: firstBudget, wake: never,
	}
	if cfg.Quarantine != nil {
		s.table = quarantine.New(*cfg.Quarantine)
	}
	return s
}

// Quarantine is the table of keys; nil if there is none.
func (s *State) Quarantine() *quarantine.State { return s.table }

// Next returns when an event Wake has to come; false: not until another event has.
func (s *State) Next() (Time, bool) { return s.wake, s.wake != never }

// Len returns how many calls wait, run, and wait to run again, and how long the oldest of those
// that wait has done so.
func (s *State) Len(now Time) (waits, runs, reruns int, oldest time.Duration) {
	for _, t := range s.waiting.order {
		oldest = max(oldest, now-t.calls.Front().Value.(*callRecord).since)
	}
	waits = s.waiting.n + len(s.alone)
	return waits, len(s.calls) - waits - len(s.later), len(s.later), oldest
}

// held is what counts against the bound of the queue.
func (s *State) held() int { return s.waiting.n + len(s.alone) + len(s.later) + len(s.places) }

// wait puts a call into its tenant's queue.
func (s *State) wait(c *callRecord, first bool) {
	c.place, c.worker = waiting, nil
	if first {
		c.elem = s.waiting.pushFront(c.Tenant, c)
	} else {
		c.since = s.now
		c.elem = s.waiting.push(c.Tenant, c)
	}
}

// dispatch hands calls to workers that have room, and gives free places to those who wait for one.
func (s *State) dispatch() {
	s.alone = slices.DeleteFunc(s.alone, s.runAlone)
	for s.waiting.n > 0 {
		w := s.room()
		if w == nil {
			break
		}
		c := s.waiting.next().(*callRecord)
		switch s.admit(c) {
		case quarantine.Refuse:
			s.Totals.Refused++
			s.end(c, Quarantined)
		case quarantine.Alone:
			c.place = alone
			if !s.runAlone(c) {
				s.alone = append(s.alone, c)
			}
		case quarantine.Pass:
			s.hand(c, w)
		}
	}
	for s.blocked.n > 0 && s.held() < s.cfg.Queue {
		s.place(s.blocked.next().(Call))
	}
}

func (s *State) admit(c *callRecord) quarantine.Verdict {
	if s.table == nil || c.Key == "" {
		return quarantine.Pass
	}
	return s.table.Admit(s.now, c.Key)
}

// room returns the worker that is next to get a call; nil: none has room.
func (s *State) room() *workerRecord {
	for len(s.free) > 0 {
		if w := s.free[0]; s.hasRoom(w) {
			return w
		}
		s.free[0].free = false
		s.free = s.free[1:]
	}
	return nil
}

func (s *State) hasRoom(w *workerRecord) bool {
	return !w.leaving && w.kept == nil && len(w.calls) < s.cfg.PerWorker
}

// freed puts w among those that may have room.
func (s *State) freed(w *workerRecord) {
	if !w.free && s.hasRoom(w) {
		w.free = true
		s.free = append(s.free, w)
	}
}

// runAlone hands a probe to a worker that runs nothing; if there is none, one is kept for it.
func (s *State) runAlone(c *callRecord) bool {
	if c.worker == nil {
		for _, w := range s.workers {
			if s.hasRoom(w) && (c.worker == nil || len(w.calls) < len(c.worker.calls) || len(w.calls) == len(c.worker.calls) && w.id < c.worker.id) {
				c.worker = w
			}
		}
		if c.worker == nil { // all are full: the one with the fewest calls by number
			for _, w := range s.workers {
				if !w.leaving && w.kept == nil && (c.worker == nil || w.id < c.worker.id) {
					c.worker = w
				}
			}
		}
		if c.worker == nil {
			return false
		}
		c.worker.kept = c
	}
	if len(c.worker.calls) > 0 {
		return false
	}
	s.hand(c, c.worker)
	return true
}

func (s *State) hand(c *callRecord, w *workerRecord) {
	c.place, c.worker, c.since, c.at = running, w, s.now, never
	c.run++
	c.expired, c.killing = false, false
	w.calls = append(w.calls, c)
	w.leaving = w.leaving || s.cfg.Once
	if w.free { // its turn is over
		w.free = false
		s.free = slices.DeleteFunc(s.free, func(o *workerRecord) bool { return o == w })
	}
	s.freed(w)
	if c.Timeout > 0 {
		s.due(c, c.Timeout)
	}
	s.do = append(s.do, Effect{Kind: Hand, ID: c.ID, Run: c.run, Worker: w.id})
}

// due sets the next deadline of a call. One beyond what a Time can tell does not come.
func (s *State) due(c *callRecord, d time.Duration) {
	c.at = never
	if d < never-s.now {
		c.at = s.now + d
	}
	s.wake = min(s.wake, c.at)
}

// end tells the caller what became of c, and forgets it.
func (s *State) end(c *callRecord, o Outcome) {
	delete(s.calls, c.ID)
	if c.canceled {
		o = Dropped
	}
	s.do = append(s.do, Effect{Kind: Reply, ID: c.ID, Run: c.run, Outcome: o, Deaths: c.deaths})
}

// release takes c from its worker.
func (s *State) release(c *callRecord) {
	w := c.worker
	c.worker = nil
	if w == nil {
		return
	}
	w.calls = slices.DeleteFunc(w.calls, func(o *callRecord) bool { return o == c })
	if w.kept == c {
		w.kept = nil
	}
	s.freed(w)
	s.left(w)
}
