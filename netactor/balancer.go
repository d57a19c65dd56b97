package netactor

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// balancer holds the rules of Dispatcher: who is offered what, and what becomes of
// it. It has no goroutines, clocks, sockets or locks; time comes in with the
// calls that need it.
//
// A connection is accepted when some worker has room for it,
// and placed: offered to that worker. Each offer is settled once. A claim ends
// the connection; a refusal or a return makes it wait, and it is placed again as
// soon as a worker has room. So a connection is with one worker at most, and
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
// connection is peeking until it has them: no worker's room is taken up by it, and none kept for it.
type balancer struct {
	workers   map[uint64]*workerState
	listeners map[uint64]*listenerState
}

const (
	// A worker that refuses, or lets an offer run out, is left alone for a
	// while: so a connection cannot bounce, and nothing spins.
	firstSuspension = 50 * time.Millisecond
	maxSuspension   = 2 * time.Second

	// maxMemberships bounds the listeners that one worker can claim to take part in.
	maxMemberships = 4096
)

func newBalancer() *balancer {
	return &balancer{workers: make(map[uint64]*workerState), listeners: make(map[uint64]*listenerState)}
}

// addWorker makes a worker known. One that is known already is left as it is.
func (b *balancer) addWorker(w Worker) *workerState {
	a := b.workers[w.ID]
	if a == nil {
		a = &workerState{worker: w, memberships: make(map[uint64]*membership), credit: 1, reportedLoad: -1}
		b.workers[w.ID] = a
	}
	return a
}

// removeWorker says that a worker is gone. What it had claimed died with it;
// what it was offered is still to be settled, one by one.
func (b *balancer) removeWorker(w *workerState) {
	if b.workers[w.worker.ID] != w {
		return
	}
	delete(b.workers, w.worker.ID)
	for _, m := range w.memberships {
		b.leave(m)
		m.dead = true
		if m.listener == nil {
			continue
		}
		delete(m.listener.members, w.worker.ID)
		b.countEnds(m)
		m.archive()
	}
}

// countEnds brings the ends of a dead worker's connections to book: what it had
// closed finished, the rest died. Of some that it closed the claim may still
// have to be heard of.
func (b *balancer) countEnds(m *membership) {
	c := &m.counts
	m.listener.load -= c.Open()
	has := c.Inherited + c.Claimed
	ended := c.Finished
	if n, ok := m.finishedByWorker(); ok {
		ended = max(ended, min(n, has+uint64(c.Offered)))
	}
	c.Finished = min(ended, has)
	m.owedEnds = int(ended - c.Finished)
	c.Died = has - c.Finished
}

// addListener opens a listener, with the user's functions for it. It is nil if the number is taken.
func (b *balancer) addListener(number uint64, o opening, f Functions) *listenerState {
	if b.listeners[number] != nil {
		return nil
	}
	l := &listenerState{number: number, name: o.Name, limits: o.Limits, paused: o.Paused, members: make(map[uint64]*membership)}
	if l.limits.Window == 0 {
		l.limits.Window = DefaultWindow
	}
	l.order = newOrder(l, o.Policy, f)
	l.needsEnds = o.Policy == LeastLoaded || o.Policy == Custom || o.Limits.PerWorker > 0 || o.Limits.Total > 0
	b.listeners[number] = l
	for _, w := range b.workers {
		if m := w.memberships[number]; m != nil {
			b.attach(m, l)
		}
	}
	return l
}

// removeListener closes a listener. Its offers are still settled; what waits is
// to be taken out with drop.
func (b *balancer) removeListener(l *listenerState) {
	delete(b.listeners, l.number)
	for _, m := range l.members {
		b.leave(m)
		delete(m.worker.memberships, l.number)
	}
}

// join lets a worker take part in a listener; open is how many connections of
// it the worker has already, which counts at its first join by a link only. The listener
// may still be unknown: the worker's word and the master's take different ways.
// It is false if the worker takes part in too many.
func (b *balancer) join(w *workerState, number uint64, open uint64) bool {
	m := w.memberships[number]
	if m == nil {
		if len(w.memberships) >= maxMemberships {
			return false
		}
		m = &membership{worker: w, index: -1, busyIndex: -1}
		m.counts.Inherited = min(open, 1<<20)
		w.memberships[number] = m
	}
	if m.joined {
		return true
	}
	if m.unlinked {
		b.linkRenewed(m, open)
	}
	m.joined = true
	if m.listener != nil {
		b.activate(m)
	} else if l := b.listeners[number]; l != nil {
		b.attach(m, l)
	}
	return true
}

// attach brings a member and its listener together.
func (b *balancer) attach(m *membership, l *listenerState) {
	m.listener = l
	l.members[m.worker.worker.ID] = m
	l.load += m.counts.Open()
	m.worker.widestWindow = max(m.worker.widestWindow, l.limits.Window)
	if m.joined {
		b.activate(m)
	}
}

// linkEnded says that the link to a worker has ended, whose process goes on: it takes part in nothing
// until it joins by a new one.
func (b *balancer) linkEnded(w *workerState) {
	w.suspendedUntil, w.failures, w.onProbation = time.Time{}, 0, false
	for _, m := range w.memberships {
		b.leave(m)
		m.unlinked = true
	}
}

// linkRenewed brings a worker's member up to date that joins by a new link, where it begins to count anew: open is
// what it has.
func (b *balancer) linkRenewed(m *membership, open uint64) {
	c := &m.counts
	has := c.Inherited + c.Claimed
	ended := max(c.Finished, has-min(open, has))
	if m.listener != nil {
		m.listener.load -= int(ended - c.Finished)
		addTimes(&m.listener.handOver, m.counters.latency())
	}
	m.worker.loadSinceReport -= int(ended - c.Finished)
	c.Finished, m.finishedBefore = ended, ended
	m.counters, m.unlinked = nil, false
}

// activate lets a member that is joined take part.
func (b *balancer) activate(m *membership) {
	m.listener.accepting++
	m.listener.order.join(m)
	b.update(m)
}

// leave takes a worker off a listener. Its connections go on, and are counted.
func (b *balancer) leave(m *membership) {
	if m == nil || !m.joined {
		return
	}
	m.joined = false
	if m.listener != nil {
		m.listener.accepting--
		b.update(m)
		m.listener.order.leave(m)
	}
}

// accepted takes a new connection in. It waits until it is placed.
func (b *balancer) accepted(p *pendingConn, l *listenerState) {
	p.listener = l
	l.counts.Accepted++
	l.load++
	l.enqueue(p)
}

// startPeek takes a new connection in whose first bytes are waited for. It is false when too many
// are: then it was not taken in.
func (b *balancer) startPeek(p *pendingConn, l *listenerState, limit int) bool {
	if l.counts.Peeking >= limit {
		return false
	}
	p.listener = l
	l.counts.Accepted++
	l.counts.Peeking++
	l.load++
	return true
}

// endPeek ends the wait for the first bytes of t, which now waits to be placed; unless a limit was
// reached meanwhile at which it is to be turned away.
func (b *balancer) endPeek(p *pendingConn) (away bool) {
	l := p.listener
	l.counts.Peeking--
	if l.limits.AtLimit != WaitAtLimit && l.available > 0 && l.atLimit == l.available {
		l.counts.AtPerWorker++
		l.load--
		return true
	}
	l.enqueue(p)
	return false
}

// dropPeeking takes out for good a connection whose first bytes were waited for: its client has gone, or
// it is closed by us.
func (b *balancer) dropPeeking(p *pendingConn, reset bool) {
	l := p.listener
	l.counts.Peeking--
	l.load--
	if reset {
		l.counts.Reset++
	} else {
		l.counts.Dropped++
	}
}

// place takes the first connection that waits and gives it to a worker, t.s. Nil
// means that none waits, or none has room.
func (b *balancer) place(l *listenerState) *pendingConn {
	p := l.waiting.head
	if p == nil {
		return nil
	}
	m := l.order.pick(p)
	if m == nil {
		return nil
	}
	l.waiting.pop()
	l.counts.Waiting--
	l.counts.Offered++
	p.offeredTo = m
	m.offers.push(p)
	m.counts.Given++
	m.counts.Offered++
	m.worker.offered++
	m.worker.loadSinceReport++
	b.updateOffers(m)
	return p
}

// dropWaiting takes the first connection that waits out for good: it is closed by us.
func (b *balancer) dropWaiting(l *listenerState) *pendingConn {
	p := l.waiting.pop()
	if p == nil {
		return nil
	}
	l.counts.Waiting--
	l.counts.Dropped++
	l.load--
	return p
}

// settled ends the offer of t. Unless it was claimed, t waits again; or is done
// with, if its client has reset the connection. now matters for those alone. all says that more
// members of the worker than the one have changed.
func (b *balancer) settled(p *pendingConn, o fdipc.Outcome, reason uint8, reset bool, now time.Time) (all bool) {
	m := p.endOffer()
	w := m.worker
	p.offeredTo = nil
	switch {
	case o == fdipc.Claimed:
	case reset:
		p.listener.counts.Reset++
		p.listener.load--
	default:
		p.listener.enqueue(p)
	}
	switch o {
	case fdipc.Claimed:
		m.counts.Claimed++
		p.listener.counts.Claimed++
		if m.dead {
			p.listener.load--
			if m.owedEnds > 0 {
				m.owedEnds--
				m.counts.Finished++
			} else {
				m.counts.Died++
			}
		}
		if !w.suspendedUntil.IsZero() || w.failures > 0 || w.onProbation { // a sign of life
			w.suspendedUntil, w.failures, w.onProbation = time.Time{}, 0, false
			b.updateAll(w)
			all = true
		}
	case fdipc.Refused:
		countRefused(&m.counts, reason)
		w.loadSinceReport--
		all = true
		if reason == ReasonClosed {
			b.leave(m)
		} else {
			b.suspend(w, reason, now)
		}
	default:
		m.counts.Returned++
		w.loadSinceReport--
		b.suspend(w, fdipc.ReasonNone, now)
		all = true
	}
	all = b.updateOffers(m) || all
	m.archive()
	return all
}

// unsent says that the offer of t could not be sent. broken says that the link
// is no more: the worker takes part in nothing until it joins by a new one.
func (b *balancer) unsent(p *pendingConn, broken bool, now time.Time) {
	m := p.endOffer()
	p.offeredTo = nil
	m.counts.Unsent++
	m.worker.loadSinceReport--
	p.listener.enqueue(p)
	if broken {
		for _, m := range m.worker.memberships {
			b.leave(m)
		}
	} else {
		b.suspend(m.worker, fdipc.ReasonNone, now)
	}
	b.updateOffers(m)
	m.archive()
}

// suspend leaves a worker alone for a while, longer each time in a row.
func (b *balancer) suspend(w *workerState, why uint8, now time.Time) {
	if !w.suspendedUntil.IsZero() {
		return // for the same trouble
	}
	w.suspendReason = why
	w.suspendedUntil = now.Add(min(firstSuspension<<min(w.failures, 10), maxSuspension))
	w.failures++
	w.onProbation = true
	b.updateAll(w)
}

// endSuspensions ends the suspensions that are over, and returns when the next one will
// be; zero is never.
func (b *balancer) endSuspensions(now time.Time) (next time.Time) {
	for _, w := range b.workers {
		if w.suspendedUntil.IsZero() {
			continue
		}
		if !w.suspendedUntil.After(now) {
			w.suspendedUntil = time.Time{}
			b.updateAll(w)
		} else if next.IsZero() || w.suspendedUntil.Before(next) {
			next = w.suspendedUntil
		}
	}
	return next
}

// finished takes a worker's word on how many connections of a listener it has
// closed since it joined. Words may be late or repeated; what cannot be is
// ignored, and s is nil. all says that more members of the worker than s have changed.
func (b *balancer) finished(w *workerState, number, total uint64) (m *membership, all bool) {
	m = w.memberships[number]
	if m == nil || m.listener == nil {
		return nil, false
	}
	if total += m.finishedBefore; total <= m.counts.Finished {
		return nil, false
	}
	n := total - m.counts.Finished
	if int64(n) < 0 || int(n) > m.load() {
		return nil, false
	}
	m.counts.Finished = total
	m.listener.load -= int(n)
	w.loadSinceReport -= int(n)
	if !w.suspendedUntil.IsZero() {
		w.suspendedUntil = time.Time{} // it has descriptors again: one offer will show
		b.updateAll(w)
		all = true
	}
	return m, b.updateOffers(m) || all
}

// setLoad takes a worker's own word on how much it has to do.
func (b *balancer) setLoad(w *workerState, load int) {
	w.reportedLoad, w.loadSinceReport = max(0, load), 0
	b.updateAll(w)
}

// refresh reads what the worker of s has closed, where it does not report it.
func (b *balancer) refresh(m *membership) {
	c := &m.counts
	n, ok := m.finishedByWorker()
	if !ok || m.listener.needsEnds || n <= c.Finished || n-c.Finished > uint64(m.load()) {
		return
	}
	m.listener.load -= int(n - c.Finished)
	m.worker.loadSinceReport -= int(n - c.Finished)
	c.Finished = n
	b.update(m)
}
