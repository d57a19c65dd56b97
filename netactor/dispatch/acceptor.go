package dispatch

import (
	"errors"
	"math"
	"net/netip"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// acceptor is the accept loop of one listener. Its goroutine accepts connections while there is
// room for them, and offers them in the same turn.
type acceptor struct {
	dispatcher    *Dispatcher
	listener      *balance.ListenerState
	network, pool string
	src           *acceptSocket // changed by run alone, under dispatcher.mu
	wake          chan struct{} // capacity 1: look again
	closed        chan struct{} // closed when the socket is, at the end of run
	idle          chan struct{} // closed when, after that, no connection of the listener is left here
	peeker        *peeker       // looks at first bytes; nil if the listener does not
	poisonAnswer  string        // Functions.PoisonAnswer

	// Guarded by dispatcher.mu.
	parked       bool          // run waits for wake
	draining     bool          // run accepts what is in the backlog, then ends
	retired      bool          // run accepts nothing more and ends; what it has accepted stays
	quit         bool          // run ends at once
	ended        bool          // the socket is closed
	idleClosed   bool          // idle is closed
	notifyClosed *fdipc.Conn   // gets KindShutAck when the socket is closed
	replacement  *acceptSocket // the socket that is to replace src

	// Used by run's goroutine alone.
	batch       []acceptedConn
	conns       []*balance.PendingConn
	incomplete  []*balance.PendingConn // connections that have not sent enough
	actions     actions
	outage      faults.Outage // while accept fails
	turnAwayFor balance.Limit // the limit for which accepted connections are turned away now
	lingering   lingerQueue   // connections that were answered
}

func newAcceptor(d *Dispatcher, o wire.Opening, src *acceptSocket) *acceptor {
	return &acceptor{
		dispatcher: d, src: src, outage: faults.Outage{First: firstAcceptPause}, network: o.Network, pool: o.Pool,
		wake: make(chan struct{}, 1), closed: make(chan struct{}), idle: make(chan struct{}),
		batch: make([]acceptedConn, maxBatch), conns: make([]*balance.PendingConn, 0, maxBatch),
	}
}

// acceptedConn is one connection as acceptSocket returns it.
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

// run accepts until the listener drains or quits, and closes the socket.
func (a *acceptor) run() {
	for {
		n, err := a.src.accept(a.room, a.batch)
		if n > 0 {
			a.outage.Progress()
			if a.outage.Lasts() && !faults.IsShortage(err) {
				a.outage.End(a.dispatcher.cfg.Logger, "listener accepts again", "listener", a.listener.Name)
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
		case faults.IsShortage(err):
			// The connection stays in the backlog. A descriptor may come free at any time, here or
			// in another process, and no event reports it.
			a.dispatcher.count(func() { a.listener.Counts.Exhausted++ })
			ok = a.retry(err)
		case broken(err):
			if ok = a.src.listening(); !ok { // if it listens, it was shut down and listens again
				a.dispatcher.reportBroken(a, err)
				ok = a.waitForSocket()
			}
		case ofConnection(err): // accept(2): treat it like EAGAIN
			a.dispatcher.count(func() { a.listener.Counts.Errors++ })
			ok = a.park(time.Nanosecond)
		default: // refused by a policy, as with EACCES and EPERM, which may last
			a.dispatcher.count(func() { a.listener.Counts.Errors++ })
			ok = a.retry(err)
		}
		if !ok {
			break
		}
	}
	a.src.close()
	a.swapSocket() // closes a replacement that came too late
	a.lingering.close()
	a.dispatcher.acceptorEnded(a)
}

// retry waits before the next try after err, which may last. It waits longer each time until a
// connection comes. It returns false when run must end.
func (a *acceptor) retry(err error) bool {
	return a.park(a.outage.Begin(a.dispatcher.cfg.Logger, "listener cannot accept: clients wait in the backlog", "listener", a.listener.Name, "err", err))
}

// room returns how many connections the acceptor may accept now. acceptSocket calls it when there
// may be a connection to accept.
func (a *acceptor) room() int {
	a.dispatcher.mu.Lock()
	defer a.dispatcher.mu.Unlock()
	if a.quit || a.retired {
		return 0
	}
	n := a.listener.CanAccept()
	a.turnAwayFor = balance.LimitNone
	if n == 0 {
		if a.turnAwayFor = a.listener.LimitReached(); a.turnAwayFor != balance.LimitNone {
			n = maxBatch
		}
	}
	return n
}

// park waits until there is room, or for at most d if d is not 0. It returns false when run must
// end.
func (a *acceptor) park(d time.Duration) bool {
	if d == 0 {
		a.dispatcher.settleLinks(a.listener, true)
	}
	a.dispatcher.mu.Lock()
	if a.quit || a.retired || a.draining && a.listener.JoinedCount() == 0 {
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
	if d > 0 && a.dispatcher.hooks.After != nil {
		timer = a.dispatcher.hooks.After(d)
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

// canAcceptLocked reports whether accept may run: there is room, or a limit to turn away for.
func (a *acceptor) canAcceptLocked() bool {
	return a.listener.CanAccept() > 0 || a.listener.LimitReached() != balance.LimitNone
}

// waitForSocket waits until there is a socket that accepts. It returns false when run must end.
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

// swapSocket replaces src by replacement, and reports whether it did. If run must end, it closes
// replacement instead.
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

// drainLocked makes run accept what is in the backlog and end. The caller then interrupts the
// socket.
func (a *acceptor) drainLocked() {
	a.draining, a.listener.Paused, a.listener.Refuses = true, false, false
	a.wakeLocked()
}

// retireLocked makes run end without another accept. The caller then interrupts the socket.
func (a *acceptor) retireLocked() {
	a.retired = true
	a.drainLocked()
}

// quitLocked makes run end at once. The caller then interrupts the socket.
func (a *acceptor) quitLocked() {
	a.draining, a.quit = true, true
	a.wakeLocked()
}

// wakeLocked makes run check its state if it waits.
func (a *acceptor) wakeLocked() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// updateLocked acts on a change at the listener.
func (a *acceptor) updateLocked(acts *actions) {
	alone := a.listener.JoinedCount() == 0
	if a.parked && (a.quit || a.draining && alone || a.canAcceptLocked()) {
		a.wakeLocked()
	}
	// A listener that quits, or has ended without a worker, drops the waiting connections; so does
	// one that refuses. A replacement of the last worker joins one that retires.
	if a.quit || (a.ended && !a.retired || a.listener.Refuses) && alone {
		for p := a.dispatcher.balancer.DropWaiting(a.listener); p != nil; p = a.dispatcher.balancer.DropWaiting(a.listener) {
			acts.drops = append(acts.drops, p)
		}
		a.peeker.drop()
	}
	if !a.ended || a.idleClosed {
		return
	}
	c := &a.listener.Counts
	if c.Parked > 0 {
		a.dispatcher.lot.end(a, a.retired && !a.quit)
	}
	if c.Peeking+c.Waiting+c.Offered+c.Parked == 0 {
		a.idleClosed = true
		a.dispatcher.lot.forget(a)
		a.dispatcher.balancer.RemoveListener(a.listener)
		delete(a.dispatcher.acceptors, a.listener.Number)
		close(a.idle)
	}
}

// dispatch gives new connections to the balancer and offers them, or turns them away.
func (a *acceptor) dispatch(batch []acceptedConn) {
	d := a.dispatcher
	if a.turnAwayFor != balance.LimitNone && a.turnAway(batch) {
		return
	}
	at := shm.Monotonic()
	a.conns = a.conns[:0]
	for i := range batch {
		p := &balance.PendingConn{Handle: batch[i].h, FD: batch[i].fd, Peer: batch[i].peer, Local: batch[i].local, At: at}
		p.Handle.Tag = p
		traceAccepted(p, a)
		a.conns = append(a.conns, p)
		batch[i] = acceptedConn{}
	}
	a.peeker.lookAtNew(a.conns)
	a.actions.offers, a.incomplete = a.actions.offers[:0], a.incomplete[:0]
	var away []*balance.PendingConn
	d.mu.Lock()
	for _, p := range a.conns {
		switch p.Peek {
		case balance.PeekIncomplete:
			if d.balancer.StartPeek(p, a.listener, a.peeker.limit) {
				a.incomplete = append(a.incomplete, p)
				continue
			}
			p.Peek = balance.PeekTooMany
			d.judge(p)
		case balance.PeekReset:
			d.balancer.StartPeek(p, a.listener, math.MaxInt)
			d.balancer.DropPeeking(p, true)
			a.actions.drops = append(a.actions.drops, p)
			continue
		case balance.PeekRefused:
		case balance.PeekNotNeeded, balance.PeekKey, balance.PeekNoKey, balance.PeekTimedOut, balance.PeekTooMany:
		}
		balance.CountPeek(&a.listener.Counts, p.Peek)
		if p.Peek == balance.PeekRefused || p.OnlyTo != 0 {
			d.balancer.StartPeek(p, a.listener, math.MaxInt)
			away = d.settleJudgedLocked(p, &a.actions, away)
			continue
		}
		d.balancer.Accepted(p, a.listener)
	}
	d.updateListenerLocked(&a.actions, a.listener)
	d.mu.Unlock()
	a.peeker.await(a.incomplete)
	a.quarantine(away)
	clear(a.conns)
	clear(a.incomplete)
	d.run(&a.actions)
}

// turnAway turns away the connections that were accepted at a limit. It returns false if there is
// room for them after all.
func (a *acceptor) turnAway(batch []acceptedConn) bool {
	a.dispatcher.mu.Lock()
	if a.listener.CanAccept() >= len(batch) {
		a.dispatcher.mu.Unlock()
		return false
	}
	for range batch {
		a.listener.CountTurnedAway(a.turnAwayFor)
	}
	a.dispatcher.statsChangedLocked()
	a.dispatcher.mu.Unlock()
	for i := range batch {
		if a.turnAwayFor == balance.LimitRefuses {
			resetOnClose(batch[i].fd)
			_ = batch[i].h.Close()
		} else {
			batch[i].turnAway(a.listener.Limits.Answer, &a.lingering)
		}
		batch[i] = acceptedConn{}
	}
	return true
}
