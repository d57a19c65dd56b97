package dispatch

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// Settled handles the outcome of an offer; it is for fdipc.Config.Resolved of every link. It
// returns false, and does nothing, for a handle that this dispatcher did not offer.
func (d *Dispatcher) Settled(link *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) bool {
	p, ok := h.Tag.(*balance.PendingConn)
	if !ok {
		return false
	}
	if p.Passing {
		d.passed(p, o)
		return true
	}
	reason := h.Reason()
	traceSettled(p, o, reason)
	var reset bool
	var now time.Time
	if o != fdipc.Claimed {
		reset, now = clientReset(p), time.Now()
	}
	var acts actions
	d.mu.Lock()
	w, l := p.OfferedTo.Worker, p.Listener
	before, strikes := w.SuspendedUntil, w.Failures
	all := d.balancer.Settled(p, o, reason, reset, now)
	suspended, well := w.SuspendedUntil.After(before), strikes > 0 && w.Failures == 0
	if reset {
		p.Peek = balance.PeekReset
	}
	if reset || p.OnlyTo != 0 && o != fdipc.Claimed {
		d.untried(p)
		acts.drops = append(acts.drops, p)
	}
	if all {
		d.updateWorkerLocked(&acts, w, l)
	} else {
		d.updateListenerLocked(&acts, l)
	}
	why, gone := w.SuspendReason, d.balancer.Workers[w.Worker.ID] != w
	d.mu.Unlock()
	if (suspended || well) && !gone && link.Err() == nil { // otherwise its connections come back because it, or its link, has ended
		d.logSuspended(w, suspended, l.Name, balance.SuspendedText(why))
	}
	d.run(&acts)
	return true
}

// logSuspended logs that a worker is suspended, and when it takes connections again.
func (d *Dispatcher) logSuspended(w *balance.WorkerState, suspended bool, listener, why string) {
	if suspended {
		w.Outage.Begin(d.cfg.Logger, "worker suspended: it does not take its connections, and is tried again at longer and longer intervals", "worker", w.Worker.Name, "listener", listener, "why", why)
	} else {
		w.Outage.End(d.cfg.Logger, "worker takes connections again", "worker", w.Worker.Name)
	}
}

// actions are the calls to make once the lock is released.
type actions struct {
	offers  []*balance.PendingConn // to be offered
	drops   []*balance.PendingConn // to be closed
	handles []*fdipc.Handle
	times   []byte // for each of handles, when it was accepted
	firsts  []byte // for each of handles, the length of its PendingConn.First, and that
	fault   string // the text of a panic of the user's function
	faultAt *balance.ListenerState
}

// updateWorkerLocked acts on a change at a worker, and at l if it is not nil: it places waiting
// connections, ends finished listeners, and wakes acceptors that can go on.
func (d *Dispatcher) updateWorkerLocked(acts *actions, w *balance.WorkerState, l *balance.ListenerState) {
	d.updateListenerLocked(acts, l)
	for _, m := range w.Memberships {
		if m.Listener != l {
			d.updateListenerLocked(acts, m.Listener)
		}
	}
	if !w.SuspendedUntil.IsZero() && (d.timerAt.IsZero() || w.SuspendedUntil.Before(d.timerAt)) {
		d.timerAt = w.SuspendedUntil
		d.timer.Reset(time.Until(w.SuspendedUntil))
	}
}

// updateListenerLocked acts on a change at l.
func (d *Dispatcher) updateListenerLocked(acts *actions, l *balance.ListenerState) {
	if l == nil {
		return
	}
	for p := d.balancer.Place(l); p != nil; p = d.balancer.Place(l) {
		p.Via = p.OfferedTo.Worker.Link
		acts.offers = append(acts.offers, p)
	}
	if l.Fault != "" {
		acts.fault, acts.faultAt, l.Fault = l.Fault, l, ""
	}
	d.statsChangedLocked()
	if a := d.acceptors[l.Number]; a != nil {
		a.updateLocked(acts)
	}
}

// run offers the placed connections, one frame per worker, and closes the dropped ones. It places a
// connection again if its offer cannot be sent. It does not block.
func (d *Dispatcher) run(acts *actions) {
	if acts.fault != "" {
		d.logs.Warn(functionFailedText, "listener", acts.faultAt.Name, "err", acts.fault)
		acts.fault, acts.faultAt = "", nil
	}
	for len(acts.offers)+len(acts.drops) > 0 {
		dropped := acts.drops
		acts.drops = nil
		for _, p := range dropped {
			why := errDropped
			if p.Peek == balance.PeekReset {
				why = errReset
			}
			traceUnserved(p, why)
			closeHere(p)
		}
		var again actions
		for i, p := range acts.offers {
			if p == nil {
				continue
			}
			// Once an offer is sent its connection is no longer ours: it may be settled and placed
			// again before TrySend returns. So all connections of a group are taken out first.
			m, via := p.OfferedTo, p.Via
			acts.handles, acts.times, acts.firsts = acts.handles[:0], acts.times[:0], acts.firsts[:0]
			keyed := false
			for j, p := range acts.offers[i:] {
				if p != nil && p.OfferedTo == m && p.Via == via {
					traceOffer(p)
					acts.handles = append(acts.handles, p.Handle)
					at := p.At
					if p.Parked {
						at = -at
					}
					acts.times = binary.LittleEndian.AppendUint64(acts.times, uint64(at))
					acts.firsts = append(append(acts.firsts, byte(len(p.First))), p.First...)
					keyed = keyed || p.First != ""
					acts.offers[i+j] = nil
				}
			}
			if keyed {
				acts.times = append(acts.times, acts.firsts...)
			}
			err := via.TrySend(&fdipc.Frame{Kind: wire.KindOffer, Target: m.Listener.Number, Payload: acts.times, Handles: acts.handles})
			if err != nil {
				d.unsent(&again, m, via, acts.handles, err)
			}
			clear(acts.handles)
		}
		acts.offers, acts.drops = append(acts.offers[:0], again.offers...), again.drops
	}
}

// functionFailed counts and reports a failure of a user's function that was called without the
// lock.
func (d *Dispatcher) functionFailed(l *balance.ListenerState, what string) {
	d.count(func() { l.Counts.Faults++ })
	d.logs.Warn(functionFailedText, "listener", l.Name, "err", what)
}

const functionFailedText = "the listener's function failed, connections are placed without it"

// unsent takes back offers that could not be sent on a link. The handles are still ours.
func (d *Dispatcher) unsent(acts *actions, m *balance.Membership, via *fdipc.Conn, handles []*fdipc.Handle, err error) {
	for _, h := range handles {
		traceSettled(h.Tag.(*balance.PendingConn), fdipc.Returned, fdipc.ReasonNone)
	}
	full := errors.Is(err, fdipc.ErrFull)
	d.mu.Lock()
	over := !full && m.Worker.Link == via // else the worker has another link by now
	before := m.Worker.SuspendedUntil
	for _, h := range handles {
		p := h.Tag.(*balance.PendingConn)
		if d.balancer.Unsent(p, over, time.Now()); p.OnlyTo != 0 {
			d.untried(p)
			acts.drops = append(acts.drops, p)
		}
	}
	suspended := m.Worker.SuspendedUntil.After(before) && !d.closed // at the end, parked connections fill the links
	d.updateWorkerLocked(acts, m.Worker, m.Listener)
	d.mu.Unlock()
	if suspended {
		d.logSuspended(m.Worker, true, m.Listener.Name, "its link takes no more")
	}
	if !full {
		d.logs.Warn("worker cannot be reached", "worker", m.Worker.Worker.Name, "listener", m.Listener.Name, "err", err)
	}
}

// endSuspensions ends the suspensions that are over.
func (d *Dispatcher) endSuspensions() {
	var acts actions
	d.mu.Lock()
	d.timerAt = d.balancer.EndSuspensions(time.Now())
	if !d.timerAt.IsZero() && !d.closed {
		d.timer.Reset(time.Until(d.timerAt))
	}
	for _, a := range d.acceptors {
		d.updateListenerLocked(&acts, a.listener)
	}
	d.mu.Unlock()
	d.run(&acts)
}

// settleLinks reads claims now, and not at the links' next tick, from the workers of l that have
// used up half their window, or from all. So a worker that keeps up never looks full, and keeps its
// place in the order. settleLinks calls Settled, so only the acceptor's goroutine may call it.
func (d *Dispatcher) settleLinks(l *balance.ListenerState, all bool) {
	var few [16]*fdipc.Conn
	links := few[:0]
	d.mu.Lock()
	for _, m := range l.Busy {
		if m.Worker.Link != nil && (all || m.Counts.Offered > l.Limits.Window/2) {
			links = append(links, m.Worker.Link)
		}
	}
	d.mu.Unlock()
	for _, c := range links {
		c.ResolveOffers()
	}
}
