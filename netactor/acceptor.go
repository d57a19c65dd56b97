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
	d             *Dispatcher
	l             *ledger
	network, pool string
	src           *source       // changed by run alone, under d.mu
	kick          chan struct{} // capacity 1: look again
	closed        chan struct{} // closed when the socket is, at the end of run
	idle          chan struct{} // closed when, after that, nothing is in our hands
	peeks         *peeks        // of a listener that looks at first bytes; else nil

	// Guarded by d.mu.
	parked   bool        // waits for kick
	draining bool        // take what is in the backlog, then end
	quit     bool        // end at once
	ended    bool        // the socket is closed
	over     bool        // idle is closed
	announce *fdipc.Conn // who waits to hear that the socket is closed
	fresh    *source     // to take the place of src

	// Of run's goroutine.
	batch   []arrival
	tickets []*ticket
	early   []*ticket // those that have not said enough
	turn    turn
	backoff time.Duration
	trouble trouble
	away    limit     // why what is accepted now is to be turned away
	last    lingering // those that were answered
}

func newAcceptor(d *Dispatcher, o opening, src *source) *acceptor {
	return &acceptor{
		d: d, src: src, network: o.Network, pool: o.Pool,
		kick: make(chan struct{}, 1), closed: make(chan struct{}), idle: make(chan struct{}),
		batch: make([]arrival, maxBatch), tickets: make([]*ticket, 0, maxBatch),
	}
}

// arrival is one connection as the source hands it over.
type arrival struct {
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
	maxBatch     = 64 // connections taken in one turn
	firstBackoff = 5 * time.Millisecond
	maxBackoff   = time.Second
)

// run ends when the socket is closed: after drain, or close.
func (a *acceptor) run() {
	for {
		n, err := a.src.accept(a.room, a.batch)
		if n > 0 {
			a.backoff = 0
			if !exhausted(err) {
				a.trouble.over(a.d.cfg.Logger, "listener accepts again", "listener", a.l.name)
			}
			a.take(a.batch[:n])
			a.d.hear(a.l, false)
		}
		var ok bool
		switch {
		case err == nil:
			ok = true
		case errors.Is(err, errNoRoom):
			ok = a.park(0)
		case errors.Is(err, errDrained):
			ok = a.swap()
		case exhausted(err):
			// The connection stays in the backlog. A descriptor may come free any
			// time, here or in another process, and nothing tells.
			a.d.count(func() { a.l.counts.Exhausted++ })
			ok = a.retry(err)
		case broken(err):
			if ok = a.src.listening(); !ok { // else it was shut down, and listens again
				a.d.broken(a, err)
				ok = a.parkBroken()
			}
		case ofConnection(err): // accept(2) says to go on
			a.d.count(func() { a.l.counts.Errors++ })
			ok = a.park(time.Nanosecond)
		default: // refused by a policy, as EACCES and EPERM, which may last
			a.d.count(func() { a.l.counts.Errors++ })
			ok = a.retry(err)
		}
		if !ok {
			break
		}
	}
	a.src.close()
	a.swap() // one that came too late is closed
	a.last.close()
	a.d.ended(a)
}

// retry waits before the next try after err, which may last: longer each time until a
// connection comes. It is false when run is to end.
func (a *acceptor) retry(err error) bool {
	a.trouble.begin(a.d.cfg.Logger, "listener cannot accept: clients wait in the backlog", "listener", a.l.name, "err", err)
	a.backoff = min(max(2*a.backoff, firstBackoff), maxBackoff)
	return a.park(a.backoff)
}

// room is asked by the source when there may be a connection to accept.
func (a *acceptor) room() int {
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	if a.quit {
		return 0
	}
	n := a.l.admits()
	a.away = limitNone
	if n == 0 {
		if a.away = a.l.turnsAway(); a.away != limitNone {
			n = maxBatch
		}
	}
	return n
}

// park waits until there is room, or for at most d if d is not 0. It is false
// when run is to end.
func (a *acceptor) park(d time.Duration) bool {
	if d == 0 {
		a.d.hear(a.l, true)
	}
	a.d.mu.Lock()
	if a.quit || a.draining && a.l.joined() == 0 {
		a.d.mu.Unlock()
		return false
	}
	if d == 0 && a.canGoOnLocked() {
		a.d.mu.Unlock()
		return true
	}
	a.parked = true
	a.d.mu.Unlock()
	var timer <-chan time.Time
	if d > 0 && a.d.after != nil {
		timer = a.d.after(d)
	} else if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-a.kick:
	case <-timer:
	}
	a.d.mu.Lock()
	defer a.d.mu.Unlock()
	a.parked = false
	return !a.quit
}

// canGoOnLocked reports whether there is something to accept for.
func (a *acceptor) canGoOnLocked() bool { return a.l.admits() > 0 || a.l.turnsAway() != limitNone }

// parkBroken waits until there is a socket that accepts. It is false when run is to end.
func (a *acceptor) parkBroken() bool {
	for !a.swap() {
		a.d.mu.Lock()
		over := a.quit || a.draining
		a.d.mu.Unlock()
		if over {
			return false
		}
		<-a.kick
	}
	return true
}

// swap goes on with another socket, if there is one. When run is to end there is none.
func (a *acceptor) swap() bool {
	a.d.mu.Lock()
	fresh, old := a.fresh, a.src
	a.fresh = nil
	over := a.quit || a.draining
	if fresh != nil && !over {
		a.src = fresh
	}
	a.d.mu.Unlock()
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
	a.draining, a.l.paused = true, false
	a.kickLocked()
}

// quitLocked makes run end at once. The caller then interrupts the source.
func (a *acceptor) quitLocked() {
	a.draining, a.quit = true, true
	a.kickLocked()
}

// kickLocked makes run look again if it waits.
func (a *acceptor) kickLocked() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// lookLocked follows up on a change at the listener.
func (a *acceptor) lookLocked(w *turn) {
	alone := a.l.joined() == 0
	if a.parked && (a.quit || a.draining && alone || a.canGoOnLocked()) {
		a.kickLocked()
	}
	// A listener that ends with nobody left to take what waits drops it.
	if a.quit || a.ended && alone {
		for t := a.d.books.drop(a.l); t != nil; t = a.d.books.drop(a.l) {
			w.dropped = append(w.dropped, t)
		}
		a.peeks.drop()
	}
	if a.ended && !a.over && a.l.counts.Peeking+a.l.counts.Waiting+a.l.counts.Offered == 0 {
		a.over = true
		a.d.books.removeListener(a.l)
		delete(a.d.acceptors, a.l.number)
		close(a.idle)
	}
}

// take brings new connections onto the books and offers them; or turns them away.
func (a *acceptor) take(batch []arrival) {
	d := a.d
	if a.away != limitNone && a.turnAway(batch) {
		return
	}
	at := monotonic()
	a.tickets = a.tickets[:0]
	for i := range batch {
		t := &ticket{h: batch[i].h, fd: batch[i].fd, peer: batch[i].peer, local: batch[i].local, at: at}
		t.h.Tag = t
		t.traceAccepted(a)
		a.tickets = append(a.tickets, t)
		batch[i] = arrival{}
	}
	a.peeks.first(a.tickets)
	a.turn.placed, a.early = a.turn.placed[:0], a.early[:0]
	d.mu.Lock()
	for _, t := range a.tickets {
		switch t.seen {
		case seenEarly:
			if d.books.peeking(t, a.l, a.peeks.limit) {
				a.early = append(a.early, t)
				continue
			}
			t.seen = seenOver
		case seenGone:
			d.books.peeking(t, a.l, math.MaxInt)
			d.books.unpeeked(t, true)
			a.turn.dropped = append(a.turn.dropped, t)
			continue
		case seenNothing, seenKey, seenNoKey, seenLate, seenOver:
		}
		a.l.counts.saw(t.seen)
		d.books.accepted(t, a.l)
	}
	d.lookLocked(&a.turn, a.l)
	d.mu.Unlock()
	a.peeks.await(a.early)
	clear(a.tickets)
	clear(a.early)
	d.do(&a.turn)
}

// turnAway refuses what was accepted at a limit. It is false when there is room
// for it after all.
func (a *acceptor) turnAway(batch []arrival) bool {
	a.d.mu.Lock()
	if a.l.admits() >= len(batch) {
		a.d.mu.Unlock()
		return false
	}
	for range batch {
		a.l.refused(a.away)
	}
	a.d.dirtyLocked()
	a.d.mu.Unlock()
	for i := range batch {
		batch[i].turnAway(a.l.limits.Answer, &a.last)
		batch[i] = arrival{}
	}
	return true
}
