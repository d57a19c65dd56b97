package netactor

import (
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// acceptor is the accept loop of one listener. Its goroutine takes connections
// while there is room for them, and sends them off in the same turn.
type acceptor struct {
	dispatcher    *Dispatcher
	listener      *listenerState
	network, pool string
	src           *acceptSocket // changed by run alone, under d.mu
	wake          chan struct{} // capacity 1: look again
	closed        chan struct{} // closed when the socket is, at the end of run
	idle          chan struct{} // closed when, after that, nothing is in our hands
	peeker        *peeker       // of a listener that looks at first bytes; else nil

	// Guarded by d.mu.
	parked       bool          // waits for kick
	draining     bool          // take what is in the backlog, then end
	quit         bool          // end at once
	ended        bool          // the socket is closed
	idleClosed   bool          // idle is closed
	notifyClosed *fdipc.Conn   // who waits to hear that the socket is closed
	replacement  *acceptSocket // to take the place of src

	// Of run's goroutine.
	batch       []acceptedConn
	conns       []*pendingConn
	incomplete  []*pendingConn // those that have not said enough
	actions     actions
	outage      outage      // of accept
	turnAwayFor limit       // why what is accepted now is to be turned away
	lingering   lingerQueue // those that were answered
}

func newAcceptor(d *Dispatcher, o opening, src *acceptSocket) *acceptor {
	return &acceptor{
		dispatcher: d, src: src, outage: outage{first: firstAcceptPause}, network: o.Network, pool: o.Pool,
		wake: make(chan struct{}, 1), closed: make(chan struct{}), idle: make(chan struct{}),
		batch: make([]acceptedConn, maxBatch), conns: make([]*pendingConn, 0, maxBatch),
	}
}

// acceptedConn is one connection as the source hands it over.
type acceptedConn struct {
	h     *fdipc.Handle
	fd    int
	peer  netip.AddrPort
	local netip.AddrPort
}

var (
	errNoRoom  = errors.New("netactor: no worker has room")
	errDrained = errors.New("netactor: backlog is empty")
)

const (
	maxBatch         = 64 // connections taken in one turn
	firstAcceptPause = 5 * time.Millisecond
)

// run ends when the socket is closed: after drain, or close.
func (a *acceptor) run() {
	for {
		n, err := a.src.accept(a.room, a.batch)
		if n > 0 {
			a.outage.progress()
			if a.outage.lasts() && !isShortage(err) {
				a.outage.end(a.dispatcher.cfg.Logger, "listener accepts again", "listener", a.listener.name)
			}
			a.dispatch(a.batch[:n])
			a.dispatcher.settleLinks(a.listener, false)
		}
		var ok bool
		switch {
		case err == nil:
			ok = true
		case errors.Is(err, errNoRoom):
			ok = a.park(0)
		case errors.Is(err, errDrained):
			ok = a.swapSocket()
		case isShortage(err):
			// The connection stays in the backlog. A descriptor may come free any
			// time, here or in another process, and nothing tells.
			a.dispatcher.count(func() { a.listener.counts.Exhausted++ })
			ok = a.retry(err)
		case broken(err):
			if ok = a.src.listening(); !ok { // else it was shut down, and listens again
				a.dispatcher.reportBroken(a, err)
				ok = a.waitForSocket()
			}
		case ofConnection(err): // accept(2) says to go on
			a.dispatcher.count(func() { a.listener.counts.Errors++ })
			ok = a.park(time.Nanosecond)
		default: // refused by a policy, as EACCES and EPERM, which may last
			a.dispatcher.count(func() { a.listener.counts.Errors++ })
			ok = a.retry(err)
		}
		if !ok {
			break
		}
	}
	a.src.close()
	a.swapSocket() // one that came too late is closed
	a.lingering.close()
	a.dispatcher.acceptorEnded(a)
}

// retry waits before the next try after err, which may last: longer each time until a
// connection comes. It is false when run is to end.
func (a *acceptor) retry(err error) bool {
	return a.park(a.outage.begin(a.dispatcher.cfg.Logger, "listener cannot accept: clients wait in the backlog", "listener", a.listener.name, "err", err))
}

// room is asked by the source when there may be a connection to accept.
func (a *acceptor) room() int {
	a.dispatcher.mu.Lock()
	defer a.dispatcher.mu.Unlock()
	if a.quit {
		return 0
	}
	n := a.listener.canAccept()
	a.turnAwayFor = limitNone
	if n == 0 {
		if a.turnAwayFor = a.listener.limitReached(); a.turnAwayFor != limitNone {
			n = maxBatch
		}
	}
	return n
}

// park waits until there is room, or for at most d if d is not 0. It is false
// when run is to end.
func (a *acceptor) park(d time.Duration) bool {
	if d == 0 {
		a.dispatcher.settleLinks(a.listener, true)
	}
	a.dispatcher.mu.Lock()
	if a.quit || a.draining && a.listener.joinedCount() == 0 {
		a.dispatcher.mu.Unlock()
		return false
	}
	if d == 0 && a.canAcceptLocked() {
		a.dispatcher.mu.Unlock()
		return true
	}
	a.parked = true
	a.dispatcher.mu.Unlock()
	var timer <-chan time.Time
	if d > 0 && a.dispatcher.after != nil {
		timer = a.dispatcher.after(d)
	} else if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-a.wake:
	case <-timer:
	}
	a.dispatcher.mu.Lock()
	defer a.dispatcher.mu.Unlock()
	a.parked = false
	return !a.quit
}

// canAcceptLocked reports whether there is something to accept for.
func (a *acceptor) canAcceptLocked() bool {
	return a.listener.canAccept() > 0 || a.listener.limitReached() != limitNone
}

// waitForSocket waits until there is a socket that accepts. It is false when run is to end.
func (a *acceptor) waitForSocket() bool {
	for !a.swapSocket() {
		a.dispatcher.mu.Lock()
		over := a.quit || a.draining
		a.dispatcher.mu.Unlock()
		if over {
			return false
		}
		<-a.wake
	}
	return true
}

// swapSocket goes on with another socket, if there is one. When run is to end there is none.
func (a *acceptor) swapSocket() bool {
	a.dispatcher.mu.Lock()
	fresh, old := a.replacement, a.src
	a.replacement = nil
	over := a.quit || a.draining
	if fresh != nil && !over {
		a.src = fresh
	}
	a.dispatcher.mu.Unlock()
	switch {
	case fresh == nil:
		return false
	case over:
		fresh.close()
		return false
	}
	old.close()
	return true
}

// drainLocked makes run take what is in the backlog and end. The caller then
// interrupts the source.
func (a *acceptor) drainLocked() {
	a.draining, a.listener.paused = true, false
	a.wakeLocked()
}

// quitLocked makes run end at once. The caller then interrupts the source.
func (a *acceptor) quitLocked() {
	a.draining, a.quit = true, true
	a.wakeLocked()
}

// wakeLocked makes run look again if it waits.
func (a *acceptor) wakeLocked() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// updateLocked follows up on a change at the listener.
func (a *acceptor) updateLocked(acts *actions) {
	alone := a.listener.joinedCount() == 0
	if a.parked && (a.quit || a.draining && alone || a.canAcceptLocked()) {
		a.wakeLocked()
	}
	// A listener that ends with nobody left to take what waits drops it.
	if a.quit || a.ended && alone {
		for p := a.dispatcher.balancer.dropWaiting(a.listener); p != nil; p = a.dispatcher.balancer.dropWaiting(a.listener) {
			acts.drops = append(acts.drops, p)
		}
		a.peeker.drop()
	}
	if a.ended && !a.idleClosed && a.listener.counts.Peeking+a.listener.counts.Waiting+a.listener.counts.Offered == 0 {
		a.idleClosed = true
		a.dispatcher.balancer.removeListener(a.listener)
		delete(a.dispatcher.acceptors, a.listener.number)
		close(a.idle)
	}
}

// dispatch brings new connections to the balancer and offers them; or turns them away.
func (a *acceptor) dispatch(batch []acceptedConn) {
	d := a.dispatcher
	if a.turnAwayFor != limitNone && a.turnAway(batch) {
		return
	}
	at := monotonic()
	a.conns = a.conns[:0]
	for i := range batch {
		p := &pendingConn{h: batch[i].h, fd: batch[i].fd, peer: batch[i].peer, local: batch[i].local, at: at}
		p.h.Tag = p
		traceAccepted(p, a)
		a.conns = append(a.conns, p)
		batch[i] = acceptedConn{}
	}
	a.peeker.lookAtNew(a.conns)
	a.actions.offers, a.incomplete = a.actions.offers[:0], a.incomplete[:0]
	d.mu.Lock()
	for _, p := range a.conns {
		switch p.peek {
		case peekIncomplete:
			if d.balancer.startPeek(p, a.listener, a.peeker.limit) {
				a.incomplete = append(a.incomplete, p)
				continue
			}
			p.peek = peekTooMany
		case peekReset:
			d.balancer.startPeek(p, a.listener, math.MaxInt)
			d.balancer.dropPeeking(p, true)
			a.actions.drops = append(a.actions.drops, p)
			continue
		case peekNotNeeded, peekKey, peekNoKey, peekTimedOut, peekTooMany:
		}
		countPeek(&a.listener.counts, p.peek)
		d.balancer.accepted(p, a.listener)
	}
	d.updateListenerLocked(&a.actions, a.listener)
	d.mu.Unlock()
	a.peeker.await(a.incomplete)
	clear(a.conns)
	clear(a.incomplete)
	d.run(&a.actions)
}

// turnAway refuses what was accepted at a limit. It is false when there is room
// for it after all.
func (a *acceptor) turnAway(batch []acceptedConn) bool {
	a.dispatcher.mu.Lock()
	if a.listener.canAccept() >= len(batch) {
		a.dispatcher.mu.Unlock()
		return false
	}
	for range batch {
		a.listener.countTurnedAway(a.turnAwayFor)
	}
	a.dispatcher.statsChangedLocked()
	a.dispatcher.mu.Unlock()
	for i := range batch {
		batch[i].turnAway(a.listener.limits.Answer, &a.lingering)
		batch[i] = acceptedConn{}
	}
	return true
}
