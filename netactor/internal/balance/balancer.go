package balance

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// Balancer holds the rules of Dispatcher: who is offered what, and what becomes of
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
type Balancer struct {
	Workers   map[uint64]*WorkerState
	listeners map[uint64]*ListenerState
}

const (
	// A worker that refuses, or lets an offer run out, is left alone for a
	// while: so a connection cannot bounce, and nothing spins.
	firstSuspension = 50 * time.Millisecond
	maxSuspension   = 2 * time.Second

	// maxMemberships bounds the listeners that one worker can claim to take part in.
	maxMemberships = 4096
)

// New returns a Balancer without listeners and workers.
func New() *Balancer {
	return &Balancer{Workers: make(map[uint64]*WorkerState), listeners: make(map[uint64]*ListenerState)}
}

// AddWorker makes a worker known. One that is known already is left as it is.
func (b *Balancer) AddWorker(w netactor.Worker) *WorkerState {
	a := b.Workers[w.ID]
	if a == nil {
		a = &WorkerState{Worker: w, Memberships: make(map[uint64]*Membership), Credit: 1, reportedLoad: -1}
		b.Workers[w.ID] = a
	}
	return a
}

// RemoveWorker says that a worker is gone. What it had claimed died with it;
// what it was offered is still to be settled, one by one.
func (b *Balancer) RemoveWorker(w *WorkerState) {
	if b.Workers[w.Worker.ID] != w {
		return
	}
	delete(b.Workers, w.Worker.ID)
	for _, m := range w.Memberships {
		b.Leave(m)
		m.dead = true
		if m.Listener == nil {
			continue
		}
		delete(m.Listener.Members, w.Worker.ID)
		b.countEnds(m)
		m.archive()
	}
}

// countEnds brings the ends of a dead worker's connections to book: what it had
// closed finished, the rest died. Of some that it closed the claim may still
// have to be heard of.
func (b *Balancer) countEnds(m *Membership) {
	c := &m.Counts
	m.Listener.Load -= c.Open()
	has := c.Inherited + c.Claimed
	ended := c.Finished
	if n, ok := m.finishedByWorker(); ok {
		ended = max(ended, min(n, has+uint64(c.Offered)))
	}
	c.Finished = min(ended, has)
	m.owedEnds = int(ended - c.Finished)
	c.Died = has - c.Finished
}

// AddListener opens a listener, with the user's functions for it. It is nil if the number is taken.
func (b *Balancer) AddListener(number uint64, o wire.Opening, f netactor.Functions) *ListenerState {
	if b.listeners[number] != nil {
		return nil
	}
	l := &ListenerState{Number: number, Name: o.Name, Limits: o.Limits, Paused: o.Paused, Members: make(map[uint64]*Membership)}
	if l.Limits.Window == 0 {
		l.Limits.Window = netactor.DefaultWindow
	}
	l.order = newOrder(l, o.Policy, f)
	l.NeedsEnds = o.Policy == netactor.LeastLoaded || o.Policy == netactor.Custom || o.Limits.PerWorker > 0 || o.Limits.Total > 0
	b.listeners[number] = l
	for _, w := range b.Workers {
		if m := w.Memberships[number]; m != nil {
			b.attach(m, l)
		}
	}
	return l
}

// RemoveListener closes a listener. Its offers are still settled; what waits is
// to be taken out with drop.
func (b *Balancer) RemoveListener(l *ListenerState) {
	delete(b.listeners, l.Number)
	for _, m := range l.Members {
		b.Leave(m)
		delete(m.Worker.Memberships, l.Number)
	}
}

// Join lets a worker take part in a listener; open is how many connections of
// it the worker has already, which counts at its first join by a link only. The listener
// may still be unknown: the worker's word and the master's take different ways.
// It is false if the worker takes part in too many.
func (b *Balancer) Join(w *WorkerState, number uint64, open uint64) bool {
	m := w.Memberships[number]
	if m == nil {
		if len(w.Memberships) >= maxMemberships {
			return false
		}
		m = &Membership{Worker: w, index: -1, busyIndex: -1}
		m.Counts.Inherited = min(open, 1<<20)
		w.Memberships[number] = m
	}
	if m.joined {
		return true
	}
	if m.unlinked {
		b.linkRenewed(m, open)
	}
	m.joined = true
	if m.Listener != nil {
		b.activate(m)
	} else if l := b.listeners[number]; l != nil {
		b.attach(m, l)
	}
	return true
}

// attach brings a member and its listener together.
func (b *Balancer) attach(m *Membership, l *ListenerState) {
	m.Listener = l
	l.Members[m.Worker.Worker.ID] = m
	l.Load += m.Counts.Open()
	m.Worker.widestWindow = max(m.Worker.widestWindow, l.Limits.Window)
	if m.joined {
		b.activate(m)
	}
}

// LinkEnded says that the link to a worker has ended, whose process goes on: it takes part in nothing
// until it joins by a new one.
func (b *Balancer) LinkEnded(w *WorkerState) {
	w.SuspendedUntil, w.Failures, w.onProbation = time.Time{}, 0, false
	for _, m := range w.Memberships {
		b.Leave(m)
		m.unlinked = true
	}
}

// linkRenewed brings a worker's member up to date that joins by a new link, where it begins to count anew: open is
// what it has.
func (b *Balancer) linkRenewed(m *Membership, open uint64) {
	c := &m.Counts
	has := c.Inherited + c.Claimed
	ended := max(c.Finished, has-min(open, has))
	if m.Listener != nil {
		m.Listener.Load -= int(ended - c.Finished)
		addTimes(&m.Listener.handOver, m.Counters.Latency())
	}
	m.Worker.loadSinceReport -= int(ended - c.Finished)
	c.Finished, m.finishedBefore = ended, ended
	m.Counters, m.unlinked = nil, false
}

// activate lets a member that is joined take part.
func (b *Balancer) activate(m *Membership) {
	m.Listener.accepting++
	m.Listener.order.join(m)
	b.update(m)
}

// Leave takes a worker off a listener. Its connections go on, and are counted.
func (b *Balancer) Leave(m *Membership) {
	if m == nil || !m.joined {
		return
	}
	m.joined = false
	if m.Listener != nil {
		m.Listener.accepting--
		b.update(m)
		m.Listener.order.leave(m)
	}
}

// Accepted takes a new connection in. It waits until it is placed.
func (b *Balancer) Accepted(p *PendingConn, l *ListenerState) {
	p.Listener = l
	l.Counts.Accepted++
	l.Load++
	l.enqueue(p)
}

// StartPeek takes a new connection in whose first bytes are waited for. It is false when too many
// are: then it was not taken in.
func (b *Balancer) StartPeek(p *PendingConn, l *ListenerState, limit int) bool {
	if l.Counts.Peeking >= limit {
		return false
	}
	p.Listener = l
	l.Counts.Accepted++
	l.Counts.Peeking++
	l.Load++
	return true
}

// EndPeek ends the wait for the first bytes of t, which now waits to be placed; unless a limit was
// reached meanwhile at which it is to be turned away.
func (b *Balancer) EndPeek(p *PendingConn) (away bool) {
	l := p.Listener
	l.Counts.Peeking--
	if l.Limits.AtLimit != netactor.WaitAtLimit && l.available > 0 && l.atLimit == l.available {
		l.Counts.AtPerWorker++
		l.Load--
		return true
	}
	l.enqueue(p)
	return false
}

// DropPeeking takes out for good a connection whose first bytes were waited for: its client has gone, or
// it is closed by us.
func (b *Balancer) DropPeeking(p *PendingConn, reset bool) {
	l := p.Listener
	l.Counts.Peeking--
	l.Load--
	if reset {
		l.Counts.Reset++
	} else {
		l.Counts.Dropped++
	}
}

// Place takes the first connection that waits and gives it to a worker, t.s. Nil
// means that none waits, or none has room.
func (b *Balancer) Place(l *ListenerState) *PendingConn {
	p := l.waiting.Head
	if p == nil {
		return nil
	}
	m := l.order.pick(p)
	if m == nil {
		return nil
	}
	l.waiting.pop()
	l.Counts.Waiting--
	l.Counts.Offered++
	p.OfferedTo = m
	m.offers.Push(p)
	m.Counts.Given++
	m.Counts.Offered++
	m.Worker.offered++
	m.Worker.loadSinceReport++
	b.updateOffers(m)
	return p
}

// DropWaiting takes the first connection that waits out for good: it is closed by us.
func (b *Balancer) DropWaiting(l *ListenerState) *PendingConn {
	p := l.waiting.pop()
	if p == nil {
		return nil
	}
	l.Counts.Waiting--
	l.Counts.Dropped++
	l.Load--
	return p
}

// Settled ends the offer of t. Unless it was claimed, t waits again; or is done
// with, if its client has reset the connection. now matters for those alone. all says that more
// members of the worker than the one have changed.
func (b *Balancer) Settled(p *PendingConn, o fdipc.Outcome, reason uint8, reset bool, now time.Time) (all bool) {
	m := p.endOffer()
	w := m.Worker
	p.OfferedTo = nil
	switch {
	case o == fdipc.Claimed:
	case reset:
		p.Listener.Counts.Reset++
		p.Listener.Load--
	default:
		p.Listener.enqueue(p)
	}
	switch o {
	case fdipc.Claimed:
		m.Counts.Claimed++
		p.Listener.Counts.Claimed++
		if m.dead {
			p.Listener.Load--
			if m.owedEnds > 0 {
				m.owedEnds--
				m.Counts.Finished++
			} else {
				m.Counts.Died++
			}
		}
		if !w.SuspendedUntil.IsZero() || w.Failures > 0 || w.onProbation { // a sign of life
			w.SuspendedUntil, w.Failures, w.onProbation = time.Time{}, 0, false
			b.updateAll(w)
			all = true
		}
	case fdipc.Refused:
		countRefused(&m.Counts, reason)
		w.loadSinceReport--
		all = true
		if reason == wire.ReasonClosed {
			b.Leave(m)
		} else {
			b.suspend(w, reason, now)
		}
	default:
		m.Counts.Returned++
		w.loadSinceReport--
		b.suspend(w, fdipc.ReasonNone, now)
		all = true
	}
	all = b.updateOffers(m) || all
	m.archive()
	return all
}

// Unsent says that the offer of t could not be sent. broken says that the link
// is no more: the worker takes part in nothing until it joins by a new one.
func (b *Balancer) Unsent(p *PendingConn, broken bool, now time.Time) {
	m := p.endOffer()
	p.OfferedTo = nil
	m.Counts.Unsent++
	m.Worker.loadSinceReport--
	p.Listener.enqueue(p)
	if broken {
		for _, m := range m.Worker.Memberships {
			b.Leave(m)
		}
	} else {
		b.suspend(m.Worker, fdipc.ReasonNone, now)
	}
	b.updateOffers(m)
	m.archive()
}

// suspend leaves a worker alone for a while, longer each time in a row.
func (b *Balancer) suspend(w *WorkerState, why uint8, now time.Time) {
	if !w.SuspendedUntil.IsZero() {
		return // for the same trouble
	}
	w.SuspendReason = why
	w.SuspendedUntil = now.Add(min(firstSuspension<<min(w.Failures, 10), maxSuspension))
	w.Failures++
	w.onProbation = true
	b.updateAll(w)
}

// EndSuspensions ends the suspensions that are over, and returns when the next one will
// be; zero is never.
func (b *Balancer) EndSuspensions(now time.Time) (next time.Time) {
	for _, w := range b.Workers {
		if w.SuspendedUntil.IsZero() {
			continue
		}
		if !w.SuspendedUntil.After(now) {
			w.SuspendedUntil = time.Time{}
			b.updateAll(w)
		} else if next.IsZero() || w.SuspendedUntil.Before(next) {
			next = w.SuspendedUntil
		}
	}
	return next
}

// Finished takes a worker's word on how many connections of a listener it has
// closed since it joined. Words may be late or repeated; what cannot be is
// ignored, and s is nil. all says that more members of the worker than s have changed.
func (b *Balancer) Finished(w *WorkerState, number, total uint64) (m *Membership, all bool) {
	m = w.Memberships[number]
	if m == nil || m.Listener == nil {
		return nil, false
	}
	if total += m.finishedBefore; total <= m.Counts.Finished {
		return nil, false
	}
	n := total - m.Counts.Finished
	if int64(n) < 0 || int(n) > m.load() {
		return nil, false
	}
	m.Counts.Finished = total
	m.Listener.Load -= int(n)
	w.loadSinceReport -= int(n)
	if !w.SuspendedUntil.IsZero() {
		w.SuspendedUntil = time.Time{} // it has descriptors again: one offer will show
		b.updateAll(w)
		all = true
	}
	return m, b.updateOffers(m) || all
}

// SetLoad takes a worker's own word on how much it has to do.
func (b *Balancer) SetLoad(w *WorkerState, load int) {
	w.reportedLoad, w.loadSinceReport = max(0, load), 0
	b.updateAll(w)
}

// Refresh reads what the worker of s has closed, where it does not report it.
func (b *Balancer) Refresh(m *Membership) {
	c := &m.Counts
	n, ok := m.finishedByWorker()
	if !ok || m.Listener.NeedsEnds || n <= c.Finished || n-c.Finished > uint64(m.load()) {
		return
	}
	m.Listener.Load -= int(n - c.Finished)
	m.Worker.loadSinceReport -= int(n - c.Finished)
	c.Finished = n
	b.update(m)
}
