package balance

import (
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// Balancer holds the rules of Dispatcher: which worker is offered a connection, and what happens to
// the connection. It has no goroutines, clocks, sockets or locks; calls that need the time have it
// as a parameter.
//
// A connection is accepted when some worker has room for it, and placed: offered to that worker.
// Each offer is settled once. A claim ends the connection here. After a refusal or a return it
// waits, and is placed again as soon as a worker has room. So at most one worker has a connection,
// and
//
//	accepted + given back = claimed + reset + dropped + turned away +
//	    peeking + waiting + offered + parked + ended while parked
//
// at every moment, for each listener. For a worker at a listener
//
//	offered ever        = claimed + refused + returned + unsent + offered now
//	claimed + inherited = finished + died + open
//
// Connections wait only when no worker has room. While one waits the listener accepts none, so the
// queue is the kernel's backlog. If a policy looks at the first bytes, a connection is peeking
// until it has them: it takes no worker's room, and none is kept for it. A connection that a worker
// has given back between two requests is parked until its client sends the next one: it is no
// worker's load, and counts in the listener's total.
type Balancer struct {
	Workers   map[uint64]*WorkerState
	listeners map[uint64]*ListenerState
}

const (
	// A worker that refuses, or does not claim an offer in time, gets no offers for a while: so a
	// connection cannot bounce, and nothing spins.
	firstSuspension = 50 * time.Millisecond
	maxSuspension   = 2 * time.Second

	// maxMemberships bounds the listeners that one worker can join.
	maxMemberships = 4096
)

// New returns a Balancer without listeners and workers.
func New() *Balancer {
	return &Balancer{Workers: make(map[uint64]*WorkerState), listeners: make(map[uint64]*ListenerState)}
}

// AddWorker adds a worker and returns its state. It does not change a worker that is known already.
func (b *Balancer) AddWorker(w netactor.Worker) *WorkerState {
	a := b.Workers[w.ID]
	if a == nil {
		a = &WorkerState{Worker: w, Memberships: make(map[uint64]*Membership), Credit: 1, reportedLoad: netactor.None}
		b.Workers[w.ID] = a
	}
	return a
}

// RemoveWorker removes a worker that is gone. The connections that it had claimed died with it; its
// offers are still to be settled, each by Settled.
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

// countEnds counts the ends of a dead worker's connections: those that it had closed as finished,
// the rest as died. The claims of some connections that it closed may still be on their way.
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

// AddListener adds a listener, with the user's functions for it. It returns nil if the number is
// taken.
func (b *Balancer) AddListener(number uint64, o wire.Opening, f netactor.Functions) *ListenerState {
	if b.listeners[number] != nil {
		return nil
	}
	l := &ListenerState{Number: number, Name: o.Name, Limits: o.Limits, Paused: o.Paused, Refuses: o.Refuses, Members: make(map[uint64]*Membership), pools: make(map[string]*poolState)}
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

// RemoveListener removes a listener. Its offers are still settled; DropWaiting takes out the
// waiting connections.
func (b *Balancer) RemoveListener(l *ListenerState) {
	delete(b.listeners, l.Number)
	for _, m := range l.Members {
		b.Leave(m)
		delete(m.Worker.Memberships, l.Number)
	}
}

// Join lets a worker take part in a listener. open is how many of the listener's connections the
// worker has already; it counts only at the worker's first join over a link. The listener may still
// be unknown, since the worker's frame and the master's travel on different channels. Join returns
// false if the worker takes part in too many listeners.
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

// attach connects a membership with its listener.
func (b *Balancer) attach(m *Membership, l *ListenerState) {
	m.Listener = l
	l.Members[m.Worker.Worker.ID] = m
	l.Load += m.Counts.Open()
	m.Worker.widestWindow = max(m.Worker.widestWindow, l.Limits.Window)
	if m.joined {
		b.activate(m)
	}
}

// LinkEnded records that the link to a worker has ended while its process lives. The worker takes
// part in no listener until it joins over a new link.
func (b *Balancer) LinkEnded(w *WorkerState) {
	w.SuspendedUntil, w.Failures, w.onProbation = time.Time{}, 0, false
	for _, m := range w.Memberships {
		b.Leave(m)
		m.unlinked = true
	}
}

// linkRenewed updates a membership when its worker joins over a new link. The worker counts from
// zero there; open is how many connections it has.
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

// activate lets a joined membership take part.
func (b *Balancer) activate(m *Membership) {
	m.Listener.accepting++
	if !m.Worker.Worker.Alone {
		m.Listener.order.join(m)
	}
	b.joinPool(m)
	b.update(m)
}

// Leave removes a worker from a listener. Its connections go on, and are still counted.
func (b *Balancer) Leave(m *Membership) {
	if m == nil || !m.joined {
		return
	}
	m.joined = false
	if m.Listener != nil {
		m.Listener.accepting--
		b.update(m)
		if !m.Worker.Worker.Alone {
			m.Listener.order.leave(m)
		}
		b.leavePool(m)
	}
}

// Accepted adds a new connection. It waits until it is placed.
func (b *Balancer) Accepted(p *PendingConn, l *ListenerState) {
	p.Listener = l
	l.Counts.Accepted++
	l.Load++
	l.enqueue(p)
}

// StartPeek adds a new connection that is to send its first bytes. It returns false, and adds
// nothing, if limit connections are peeking already.
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

// EndPeek ends the peeking of p, which now waits to be placed. It returns true if p must be turned
// away, because a limit has been reached since.
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

// DropPeeking removes a peeking connection: its client has reset it, or it is closed here.
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

// Park adds a connection that a worker has given back.
func (b *Balancer) Park(p *PendingConn, l *ListenerState) {
	p.Listener = l
	l.Counts.GivenBack++
	l.Counts.Parked++
	l.Load++
}

// Unpark undoes Park: the worker has the connection after all.
func (b *Balancer) Unpark(p *PendingConn) {
	p.Listener.Counts.GivenBack--
	p.Listener.Counts.Parked--
	p.Listener.Load--
}

// Resume ends the parking of p, whose client has sent something. It waits until it is placed.
func (b *Balancer) Resume(p *PendingConn) {
	p.Listener.Counts.Parked--
	p.Listener.Counts.Resumed++
	p.Listener.enqueue(p)
}

// ResumePeek is Resume for a connection that is to send more of its first bytes. It returns false,
// and changes nothing, if limit connections are peeking already.
func (b *Balancer) ResumePeek(p *PendingConn, limit int) bool {
	l := p.Listener
	if l.Counts.Peeking >= limit {
		return false
	}
	l.Counts.Parked--
	l.Counts.Resumed++
	l.Counts.Peeking++
	return true
}

// DropParked removes a parked connection, which the caller closes or has passed on. ended is the
// count, of p.Listener's, of why.
func (b *Balancer) DropParked(p *PendingConn, ended *uint64) {
	p.Listener.Counts.Parked--
	p.Listener.Load--
	*ended++
}

// Place offers the first waiting connection to a worker, p.OfferedTo. It returns nil if no
// connection waits, or no worker has room.
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
	b.offer(p, m)
	return p
}

// PlaceOnly ends the peeking of p, and offers it to the worker p.OnlyTo. It returns false, and
// turns p away, if that takes none.
func (b *Balancer) PlaceOnly(p *PendingConn) bool {
	m := p.Listener.Members[p.OnlyTo]
	if m == nil || !m.joined || m.Worker.Link == nil {
		b.Quarantine(p)
		return false
	}
	p.Listener.Counts.Peeking--
	b.offer(p, m)
	return true
}

// Quarantine ends the peeking of p, which is turned away for its first bytes.
func (b *Balancer) Quarantine(p *PendingConn) {
	p.Listener.Counts.Peeking--
	p.Listener.Counts.Quarantined++
	p.Listener.Load--
}

// offer makes an offer of p to the worker of m.
func (b *Balancer) offer(p *PendingConn, m *Membership) {
	p.Listener.Counts.Offered++
	p.OfferedTo = m
	m.offers.Push(p)
	m.Counts.Given++
	m.Counts.Offered++
	m.Worker.offered++
	m.Worker.loadSinceReport++
	b.updateOffers(m)
}

// DropWaiting removes the first waiting connection, which the caller closes.
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

// Settled ends the offer of p. If p was not claimed it waits again, or is removed if its client has
// reset it. now is used only if p was not claimed. all reports whether other memberships of the
// worker have changed too.
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
		b.again(p)
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

// Unsent ends an offer of p that could not be sent. broken means that the link has ended: the
// worker takes part in no listener until it joins over a new link.
func (b *Balancer) Unsent(p *PendingConn, broken bool, now time.Time) {
	m := p.endOffer()
	p.OfferedTo = nil
	m.Counts.Unsent++
	m.Worker.loadSinceReport--
	b.again(p)
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

// again has p wait for another worker. It drops p, which the caller closes, if there is only one
// that may have it.
func (b *Balancer) again(p *PendingConn) {
	if p.OnlyTo == 0 {
		p.Listener.enqueue(p)
		return
	}
	p.Listener.Counts.Dropped++
	p.Listener.Load--
}

// suspend gives a worker no offers for a while, longer for each suspension in a row.
func (b *Balancer) suspend(w *WorkerState, why uint8, now time.Time) {
	if !w.SuspendedUntil.IsZero() {
		return // suspended already, for the same reason
	}
	w.SuspendReason = why
	w.SuspendedUntil = now.Add(min(firstSuspension<<min(w.Failures, 10), maxSuspension))
	w.Failures++
	w.onProbation = true
	b.updateAll(w)
}

// EndSuspensions ends the suspensions whose time is over, and returns when the next one ends; zero
// if there is none.
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

// Finished records how many connections of a listener a worker has closed since it joined. Reports
// may be late or repeated; an impossible one is ignored, and m is nil. all reports whether
// memberships of the worker other than m have changed too.
func (b *Balancer) Finished(w *WorkerState, number, total uint64) (m *Membership, all bool) {
	m = w.Memberships[number]
	if m == nil {
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
	w.loadSinceReport -= int(n)
	if m.Listener == nil { // not open here yet: its load will begin with what is open then
		return nil, false
	}
	m.Listener.Load -= int(n)
	if !w.SuspendedUntil.IsZero() {
		w.SuspendedUntil = time.Time{} // it may have descriptors again: one offer tests it
		b.updateAll(w)
		all = true
	}
	return m, b.updateOffers(m) || all
}

// SetLoad records the load that a worker reports.
func (b *Balancer) SetLoad(w *WorkerState, load int) {
	w.reportedLoad, w.loadSinceReport = max(0, load), 0
	b.updateAll(w)
}

// Refresh reads from the worker's page of counters how many connections of m it has closed, if it
// does not report that by frames.
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
