package netactor

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// books holds the rules of Dispatcher: who is offered what, and what becomes of
// it. It has no goroutines, clocks, sockets or locks; time comes in with the
// calls that need it.
//
// A connection is a ticket. It is accepted when some worker has room for it,
// and placed: offered to that worker. Each offer is settled once. A claim ends
// the ticket; a refusal or a return makes it wait, and it is placed again as
// soon as a worker has room. So a ticket is with one worker at most, and
//
//	accepted = claimed + reset + dropped + turned away + peeking + waiting + offered
//
// at every moment, per listener. For a worker at a listener
//
//	offered ever        = claimed + refused + returned + unsent + offered now
//	claimed + inherited = finished + died + open
//
// Tickets wait only when no worker has room, and while one waits nothing is
// accepted: the queue is the kernel's backlog. Where a policy looks at the first bytes, a
// ticket is peeking until it has them: no worker's room is taken up by it, and none kept for it.
type books struct {
	workers map[uint64]*account
	ledgers map[uint64]*ledger
}

const (
	defaultWindow = 32
	maxWindow     = 1024

	// A worker that refuses, or lets an offer run out, is left alone for a
	// while: so a connection cannot bounce, and nothing spins.
	firstSuspension = 50 * time.Millisecond
	maxSuspension   = 2 * time.Second

	// maxSeats bounds the listeners that one worker can claim to take part in.
	maxSeats = 4096
)

func newBooks() *books {
	return &books{workers: make(map[uint64]*account), ledgers: make(map[uint64]*ledger)}
}

// addWorker makes a worker known. One that is known already is left as it is.
func (b *books) addWorker(w Worker) *account {
	a := b.workers[w.ID]
	if a == nil {
		a = &account{worker: w, seats: make(map[uint64]*seat), credit: 1, report: -1}
		b.workers[w.ID] = a
	}
	return a
}

// removeWorker says that a worker is gone. What it had claimed died with it;
// what it was offered is still to be settled, one by one.
func (b *books) removeWorker(a *account) {
	if b.workers[a.worker.ID] != a {
		return
	}
	delete(b.workers, a.worker.ID)
	for _, s := range a.seats {
		b.leave(s)
		s.dead = true
		if s.l == nil {
			continue
		}
		delete(s.l.seats, a.worker.ID)
		b.settleEnds(s)
		s.bury()
	}
}

// settleEnds brings the ends of a dead worker's connections to book: what it had
// closed finished, the rest died. Of some that it closed the claim may still
// have to be heard of.
func (b *books) settleEnds(s *seat) {
	c := &s.counts
	s.l.load -= c.Open()
	has := c.Inherited + c.Claimed
	ended := c.Finished
	if n, ok := s.ended(); ok {
		ended = max(ended, min(n, has+uint64(c.Offered)))
	}
	c.Finished = min(ended, has)
	s.owed = int(ended - c.Finished)
	c.Died = has - c.Finished
}

// addListener opens a ledger, with the user's functions for it. It is nil if the number is taken.
func (b *books) addListener(number uint64, o opening, f Functions) *ledger {
	if b.ledgers[number] != nil {
		return nil
	}
	l := &ledger{number: number, name: o.Name, limits: o.Limits, paused: o.Paused, seats: make(map[uint64]*seat)}
	if l.limits.Window == 0 {
		l.limits.Window = defaultWindow
	}
	l.order = newOrder(l, o.Policy, f)
	l.needsEnds = o.Policy == LeastLoaded || o.Policy == Custom || o.Limits.PerWorker > 0 || o.Limits.Total > 0
	b.ledgers[number] = l
	for _, a := range b.workers {
		if s := a.seats[number]; s != nil {
			b.sit(s, l)
		}
	}
	return l
}

// removeListener closes a ledger. Its offers are still settled; what waits is
// to be taken out with drop.
func (b *books) removeListener(l *ledger) {
	delete(b.ledgers, l.number)
	for _, s := range l.seats {
		b.leave(s)
		delete(s.a.seats, l.number)
	}
}

// join lets a worker take part in a listener; open is how many connections of
// it the worker has already, which counts at its first join by a link only. The listener
// may still be unknown: the worker's word and the master's take different ways.
// It is false if the worker takes part in too many.
func (b *books) join(a *account, number uint64, open uint64) bool {
	s := a.seats[number]
	if s == nil {
		if len(a.seats) >= maxSeats {
			return false
		}
		s = &seat{a: a, index: -1, busy: -1}
		s.counts.Inherited = min(open, 1<<20)
		a.seats[number] = s
	}
	if s.joined {
		return true
	}
	if s.unlinked {
		b.relink(s, open)
	}
	s.joined = true
	if s.l != nil {
		b.take(s)
	} else if l := b.ledgers[number]; l != nil {
		b.sit(s, l)
	}
	return true
}

// sit brings a seat and its listener together.
func (b *books) sit(s *seat, l *ledger) {
	s.l = l
	l.seats[s.a.worker.ID] = s
	l.load += s.counts.Open()
	s.a.widest = max(s.a.widest, l.limits.Window)
	if s.joined {
		b.take(s)
	}
}

// unlink says that the link to a worker has ended, whose process goes on: it takes part in nothing
// until it joins by a new one.
func (b *books) unlink(a *account) {
	a.until, a.strikes, a.trial = time.Time{}, 0, false
	for _, s := range a.seats {
		b.leave(s)
		s.unlinked = true
	}
}

// relink brings a worker's seat up to date that joins by a new link, where it begins to count anew: open is
// what it has.
func (b *books) relink(s *seat, open uint64) {
	c := &s.counts
	has := c.Inherited + c.Claimed
	ended := max(c.Finished, has-min(open, has))
	if s.l != nil {
		s.l.load -= int(ended - c.Finished)
		s.l.handOver.add(s.sheet.latency())
	}
	s.a.since -= int(ended - c.Finished)
	c.Finished, s.before = ended, ended
	s.sheet, s.unlinked = nil, false
}

// take lets a seat that is joined take part.
func (b *books) take(s *seat) {
	s.l.taking++
	s.l.order.join(s)
	b.update(s)
}

// leave takes a worker off a listener. Its connections go on, and are counted.
func (b *books) leave(s *seat) {
	if s == nil || !s.joined {
		return
	}
	s.joined = false
	if s.l != nil {
		s.l.taking--
		b.update(s)
		s.l.order.leave(s)
	}
}

// accepted takes a new connection in. It waits until it is placed.
func (b *books) accepted(t *ticket, l *ledger) {
	t.l = l
	l.counts.Accepted++
	l.load++
	l.wait(t)
}

// peeking takes a new connection in whose first bytes are waited for. It is false when too many
// are: then it was not taken in.
func (b *books) peeking(t *ticket, l *ledger, limit int) bool {
	if l.counts.Peeking >= limit {
		return false
	}
	t.l = l
	l.counts.Accepted++
	l.counts.Peeking++
	l.load++
	return true
}

// peeked ends the wait for the first bytes of t, which now waits to be placed; unless a limit was
// reached meanwhile at which it is to be turned away.
func (b *books) peeked(t *ticket) (away bool) {
	l := t.l
	l.counts.Peeking--
	if l.limits.AtLimit != WaitAtLimit && l.able > 0 && l.sated == l.able {
		l.counts.AtPerWorker++
		l.load--
		return true
	}
	l.wait(t)
	return false
}

// unpeeked takes out for good a ticket whose first bytes were waited for: its client has gone, or
// it is closed by us.
func (b *books) unpeeked(t *ticket, reset bool) {
	l := t.l
	l.counts.Peeking--
	l.load--
	if reset {
		l.counts.Reset++
	} else {
		l.counts.Dropped++
	}
}

// place takes the first ticket that waits and gives it to a worker, t.s. Nil
// means that none waits, or none has room.
func (b *books) place(l *ledger) *ticket {
	t := l.waiting.head
	if t == nil {
		return nil
	}
	s := l.order.pick(t)
	if s == nil {
		return nil
	}
	l.waiting.pop()
	l.counts.Waiting--
	l.counts.Offered++
	t.s = s
	s.offers.push(t)
	s.counts.Given++
	s.counts.Offered++
	s.a.offered++
	s.a.since++
	b.updateOffers(s)
	return t
}

// drop takes the first ticket that waits out for good: it is closed by us.
func (b *books) drop(l *ledger) *ticket {
	t := l.waiting.pop()
	if t == nil {
		return nil
	}
	l.counts.Waiting--
	l.counts.Dropped++
	l.load--
	return t
}

// settled ends the offer of t. Unless it was claimed, t waits again; or is done
// with, if its client has reset the connection. now matters for those alone. all says that more
// seats of the worker than the one have changed.
func (b *books) settled(t *ticket, o fdipc.Outcome, reason uint8, reset bool, now time.Time) (all bool) {
	s := t.unoffer()
	a := s.a
	t.s = nil
	switch {
	case o == fdipc.Claimed:
	case reset:
		t.l.counts.Reset++
		t.l.load--
	default:
		t.l.wait(t)
	}
	switch o {
	case fdipc.Claimed:
		s.counts.Claimed++
		t.l.counts.Claimed++
		if s.dead {
			t.l.load--
			if s.owed > 0 {
				s.owed--
				s.counts.Finished++
			} else {
				s.counts.Died++
			}
		}
		if !a.until.IsZero() || a.strikes > 0 || a.trial { // a sign of life
			a.until, a.strikes, a.trial = time.Time{}, 0, false
			b.updateAll(a)
			all = true
		}
	case fdipc.Refused:
		s.counts.refused(reason)
		a.since--
		all = true
		if reason == ReasonClosed {
			b.leave(s)
		} else {
			b.suspend(a, reason, now)
		}
	default:
		s.counts.Returned++
		a.since--
		b.suspend(a, fdipc.ReasonNone, now)
		all = true
	}
	all = b.updateOffers(s) || all
	s.bury()
	return all
}

// unsent says that the offer of t could not be sent. broken says that the link
// is no more: the worker takes part in nothing until it joins by a new one.
func (b *books) unsent(t *ticket, broken bool, now time.Time) {
	s := t.unoffer()
	t.s = nil
	s.counts.Unsent++
	s.a.since--
	t.l.wait(t)
	if broken {
		for _, s := range s.a.seats {
			b.leave(s)
		}
	} else {
		b.suspend(s.a, fdipc.ReasonNone, now)
	}
	b.updateOffers(s)
	s.bury()
}

// suspend leaves a worker alone for a while, longer each time in a row.
func (b *books) suspend(a *account, why uint8, now time.Time) {
	if !a.until.IsZero() {
		return // for the same trouble
	}
	a.why = why
	a.until = now.Add(min(firstSuspension<<min(a.strikes, 10), maxSuspension))
	a.strikes++
	a.trial = true
	b.updateAll(a)
}

// wake ends the suspensions that are over, and returns when the next one will
// be; zero is never.
func (b *books) wake(now time.Time) (next time.Time) {
	for _, a := range b.workers {
		if a.until.IsZero() {
			continue
		}
		if !a.until.After(now) {
			a.until = time.Time{}
			b.updateAll(a)
		} else if next.IsZero() || a.until.Before(next) {
			next = a.until
		}
	}
	return next
}

// finished takes a worker's word on how many connections of a listener it has
// closed since it joined. Words may be late or repeated; what cannot be is
// ignored, and s is nil. all says that more seats of the worker than s have changed.
func (b *books) finished(a *account, number, total uint64) (s *seat, all bool) {
	s = a.seats[number]
	if s == nil || s.l == nil {
		return nil, false
	}
	if total += s.before; total <= s.counts.Finished {
		return nil, false
	}
	n := total - s.counts.Finished
	if int64(n) < 0 || int(n) > s.load() {
		return nil, false
	}
	s.counts.Finished = total
	s.l.load -= int(n)
	a.since -= int(n)
	if !a.until.IsZero() {
		a.until = time.Time{} // it has descriptors again: one offer will show
		b.updateAll(a)
		all = true
	}
	return s, b.updateOffers(s) || all
}

// reports takes a worker's own word on how much it has to do.
func (b *books) reports(a *account, load int) {
	a.report, a.since = max(0, load), 0
	b.updateAll(a)
}
