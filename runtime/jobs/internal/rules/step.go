package rules

import (
	"fmt"
	"slices"
)

// EventKind is what has happened.
type EventKind uint8

// The events.
const (
	Submit      EventKind = iota // Call comes, from a caller that may have a place
	Reserve                      // Call's caller wants a place in the queue
	Cancel                       // the caller of ID no longer waits
	Gone                         // the process From has ended, with all its callers
	Join                         // Worker takes calls
	Leave                        // Worker takes no more, and finishes what it has
	Answer                       // Worker has run ID to its end, of which OK says whether it is an answer
	Undelivered                  // ID did not reach Worker, which has ended or is about to
	Death                        // Worker has ended, for Reason; Blame: of itself
	Wake                         // the time of Next has come
)

// An Event is the input of Step. Its kind says which fields it has.
type Event struct {
	Kind      EventKind
	Call      Call
	ID, From  string
	Worker    int
	Run       int
	OK, Blame bool
	Reason    string
}

// EffectKind is what is to be done.
type EffectKind uint8

// The effects, to be done in their order.
const (
	Hand  EffectKind = iota // hand ID to Worker
	Soft                    // end the context of ID in Worker
	Kill                    // kill Worker, for ID
	Reply                   // tell the caller of ID what became of it, and forget it unless Outcome is Place or Wait
	Found                   // ID is a key that is quarantined from now on
	Left                    // tell Worker, which takes no more, that it has nothing any more
)

// Outcome is what became of a call.
type Outcome uint8

// The outcomes.
const (
	Ended       Outcome = iota // with what the worker said
	Expired                    // as Ended, but its time was over
	Killed                     // its worker was killed, for it had not ended when its time was over
	Died                       // its worker has died
	Full                       // there was no place
	Wait                       // there was no place, and it may ask for one
	Place                      // a place is kept for it
	Quarantined                // its key is quarantined
	Dropped                    // the caller no longer waits
)

// An Effect is an output of Step.
type Effect struct {
	Kind    EffectKind
	ID      string
	Run     int // of the call, from 1
	Worker  int
	Outcome Outcome // of a Reply; of a Soft why: Expired or Dropped
	Deaths  int     // of workers that had the call
}

// String returns one line.
func (e Effect) String() string {
	switch e.Kind {
	case Hand:
		return fmt.Sprintf("hand %s.%d to %d", e.ID, e.Run, e.Worker)
	case Soft:
		return fmt.Sprintf("end the context of %s.%d in %d", e.ID, e.Run, e.Worker)
	case Kill:
		return fmt.Sprintf("kill %d for %s.%d", e.Worker, e.ID, e.Run)
	case Reply:
		return fmt.Sprintf("%s: %v", e.ID, e.Outcome)
	case Found:
		return fmt.Sprintf("%s is quarantined", e.ID)
	case Left:
		return fmt.Sprintf("%d has left", e.Worker)
	}
	return "?"
}

// String returns the outcome's name.
func (o Outcome) String() string {
	return [...]string{"ended", "expired", "killed", "died", "full", "wait", "place", "quarantined", "dropped"}[o]
}

// Step applies an event and returns what is to be done. What does not fit, as an answer of a run
// that is over, changes nothing.
func (s *State) Step(now Time, ev Event) []Effect {
	s.now, s.do = max(now, s.now), nil
	switch ev.Kind {
	case Submit:
		s.submit(ev.Call)
	case Reserve:
		s.reserve(ev.Call)
	case Cancel:
		s.unblock(func(c Call) bool { return c.ID == ev.ID })
		if c := s.calls[ev.ID]; c != nil {
			s.cancel(c)
		}
	case Gone:
		s.unblock(func(c Call) bool { return c.From == ev.From })
		for _, c := range s.sorted() {
			if c.From == ev.From {
				s.cancel(c)
			}
		}
	case Join:
		if s.workers[ev.Worker] == nil {
			w := &workerRecord{id: ev.Worker}
			s.workers[w.id] = w
			s.freed(w)
		}
	case Leave:
		if w := s.workers[ev.Worker]; w != nil {
			s.leave(w)
			w.asked = true
			s.left(w)
		}
	case Answer, Undelivered:
		c := s.calls[ev.ID]
		if c == nil || c.place != running || c.worker.id != ev.Worker || c.run != ev.Run {
			break
		}
		if ev.Kind == Answer {
			s.answered(c, ev.OK)
		} else {
			s.undelivered(c)
		}
	case Death:
		if w := s.workers[ev.Worker]; w != nil {
			s.died(w, ev.Reason, ev.Blame)
		}
	case Wake:
		s.deadlines()
	}
	s.dispatch()
	return s.do
}

func (s *State) submit(c Call) {
	_, kept := s.places[c.ID]
	delete(s.places, c.ID)
	if s.calls[c.ID] != nil {
		return
	}
	if !kept && s.held() >= s.cfg.Queue && !s.makeRoom(c.Tenant) {
		s.refuse(c)
		return
	}
	s.Totals.Taken++
	s.budget = min(s.budget+1, maxBudget)
	r := &callRecord{Call: c}
	s.calls[c.ID] = r
	s.wait(r, false)
}

// refuse turns a call away, or has it come again.
func (s *State) refuse(c Call) {
	o := Full
	if s.cfg.Block {
		o = Wait
	} else {
		s.Totals.Full++
	}
	s.do = append(s.do, Effect{Kind: Reply, ID: c.ID, Outcome: o})
}

// reserve keeps a place, now or when there is one.
func (s *State) reserve(c Call) {
	switch {
	case s.held() < s.cfg.Queue, s.makeRoom(c.Tenant):
		s.place(c)
	case s.cfg.Block:
		s.Totals.Blocked++
		s.blocked.push(c.Tenant, c)
	default:
		s.refuse(c)
	}
}

// place keeps a place for a caller.
func (s *State) place(c Call) {
	s.places[c.ID] = c
	s.do = append(s.do, Effect{Kind: Reply, ID: c.ID, Outcome: Place})
}

// makeRoom turns the latest call of the tenant with the most calls away, for one of a tenant that
// has fewer. Callers that wait for their places take turns instead.
func (s *State) makeRoom(name string) bool {
	if s.cfg.Block {
		return false
	}
	most := s.waiting.longest()
	if most == nil || most.calls.Len() <= s.waiting.of(name)+1 {
		return false
	}
	for e := most.calls.Back(); e != nil; e = e.Prev() {
		if c := e.Value.(*callRecord); c.run == 0 && !c.Single { // what has run is not refused, nor what would be lost with it
			s.waiting.remove(most.name, e)
			s.Totals.Full++
			s.end(c, Full)
			return true
		}
	}
	return false
}

func (s *State) unblock(gone func(Call) bool) {
	s.blocked.removeFunc(func(v any) bool { return gone(v.(Call)) })
	for id, c := range s.places {
		if gone(c) {
			delete(s.places, id)
		}
	}
}

// cancel ends a call whose caller no longer waits. One that runs keeps its place in the worker
// until it has ended.
func (s *State) cancel(c *callRecord) {
	if c.canceled {
		return
	}
	s.Totals.Canceled++
	c.canceled = true
	switch c.place {
	case waiting:
		s.waiting.remove(c.Tenant, c.elem)
	case alone:
		s.alone = slices.DeleteFunc(s.alone, func(o *callRecord) bool { return o == c })
		s.dropped(c)
		s.release(c)
	case later:
		s.later = slices.DeleteFunc(s.later, func(o *callRecord) bool { return o == c })
	case running:
		if !c.expired {
			s.soft(c)
		}
		return
	}
	s.end(c, Dropped)
}

// soft ends the context of a run, and sets when its worker is killed.
func (s *State) soft(c *callRecord) {
	s.due(c, max(0, c.Grace))
	why := Dropped
	if c.expired {
		why = Expired
	}
	s.do = append(s.do, Effect{Kind: Soft, ID: c.ID, Run: c.run, Worker: c.worker.id, Outcome: why})
}

func (s *State) leave(w *workerRecord) {
	w.leaving = true
	if c := w.kept; c != nil && c.place == alone { // it looks for another
		w.kept, c.worker = nil, nil
	}
}

func (s *State) answered(c *callRecord, ok bool) {
	s.release(c)
	o := Ended
	switch {
	case c.canceled:
		s.dropped(c)
	default:
		if s.table != nil && c.Key != "" {
			s.found(s.table.Answered(s.now, c.Key))
		}
		if s.Totals.Answered++; c.expired && !ok {
			s.Totals.Expired++
			o = Expired
		}
	}
	s.end(c, o)
}

// left says so of a worker that has asked, and has nothing any more.
func (s *State) left(w *workerRecord) {
	if w.asked && len(w.calls) == 0 {
		w.asked = false
		s.do = append(s.do, Effect{Kind: Left, Worker: w.id})
	}
}

func (s *State) undelivered(c *callRecord) {
	s.leave(c.worker)
	s.dropped(c)
	s.release(c)
	switch {
	case c.canceled:
		s.end(c, Dropped)
	case c.Single:
		s.Totals.Died++
		s.end(c, Died)
	default:
		s.wait(c, true)
	}
}

func (s *State) dropped(c *callRecord) {
	if s.table != nil && c.Key != "" {
		s.table.Dropped(c.Key)
	}
}

// died ends what a dead worker had, or has it run again.
func (s *State) died(w *workerRecord, reason string, blame bool) {
	s.leave(w)
	w.asked = false
	delete(s.workers, w.id)
	calls := slices.Clone(w.calls)
	guilty := calls
	if slices.ContainsFunc(calls, func(c *callRecord) bool { return c.killing }) {
		// A kill because the caller has gone says nothing of the key, unless it was a probe.
		guilty = slices.DeleteFunc(slices.Clone(calls), func(c *callRecord) bool { return !c.killing || !c.expired && !s.quarantined(c) })
		blame = len(guilty) > 0
	}
	var keys []string
	for _, c := range calls {
		if blame && c.Key != "" && slices.Contains(guilty, c) {
			keys = append(keys, c.Key)
		} else {
			s.dropped(c)
		}
	}
	if len(keys) > 0 && s.table != nil {
		s.found(s.table.Died(s.now, reason, keys...))
	}
	for _, c := range calls {
		s.release(c)
		c.deaths++
		switch {
		case c.canceled:
			s.end(c, Dropped)
		case c.killing:
			s.Totals.Killed++
			s.end(c, Killed)
		case c.deaths <= c.Reruns && s.budget >= rerunCost && !s.quarantined(c):
			s.budget -= rerunCost
			s.Totals.Reruns++
			c.place = later
			s.later = append(s.later, c)
			s.due(c, min(firstBackoff<<(min(c.deaths, 8)-1), maxBackoff))
		default:
			s.Totals.Died++
			s.end(c, Died)
		}
	}
}

func (s *State) quarantined(c *callRecord) bool {
	if s.table == nil || c.Key == "" {
		return false
	}
	e, found := s.table.Entry(s.now, c.Key)
	return found && !e.Released
}

// found tells which keys are quarantined from now on.
func (s *State) found(keys []string) {
	for _, key := range keys {
		s.do = append(s.do, Effect{Kind: Found, ID: key})
	}
}

// deadlines does what is due.
func (s *State) deadlines() {
	s.wake = never
	again := s.later
	s.later = nil
	for _, c := range again {
		if c.at > s.now {
			s.later = append(s.later, c)
			s.wake = min(s.wake, c.at)
		} else {
			s.wait(c, false)
		}
	}
	for _, c := range s.sorted() {
		switch {
		case c.place != running || c.at == never:
		case c.at > s.now:
			s.wake = min(s.wake, c.at)
		case c.expired || c.canceled:
			c.at, c.killing = never, true
			s.leave(c.worker)
			s.do = append(s.do, Effect{Kind: Kill, ID: c.ID, Run: c.run, Worker: c.worker.id})
		default:
			c.expired = true
			s.soft(c)
		}
	}
}

// sorted returns the calls in an order that does not change: those that run, by worker, first.
func (s *State) sorted() []*callRecord {
	var all []*callRecord
	for _, w := range s.workers {
		all = append(all, w.calls...)
	}
	slices.SortStableFunc(all, func(a, b *callRecord) int { return a.worker.id - b.worker.id })
	for v := range s.waiting.all() {
		all = append(all, v.(*callRecord))
	}
	return slices.Concat(all, s.alone, s.later)
}
