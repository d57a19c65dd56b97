package netactor

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// Settled takes the outcome of an offer, for fdipc.Config.Resolved of every
// link. It is false, and does nothing, for a handle that is not from here.
func (d *Dispatcher) Settled(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) bool {
	p, ok := h.Tag.(*pendingConn)
	if !ok {
		return false
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
	w, l := p.offeredTo.worker, p.listener
	before, strikes := w.suspendedUntil, w.failures
	all := d.balancer.settled(p, o, reason, reset, now)
	suspended, well := w.suspendedUntil.After(before), strikes > 0 && w.failures == 0
	if reset {
		p.peek = peekReset
		acts.drops = append(acts.drops, p)
	}
	if all {
		d.updateWorkerLocked(&acts, w, l)
	} else {
		d.updateListenerLocked(&acts, l)
	}
	why := w.suspendReason
	d.mu.Unlock()
	if suspended || well {
		d.logSuspended(w, suspended, l.name, suspendedText(why))
	}
	d.run(&acts)
	return true
}

// logSuspended says that a worker does not take what it is offered, and when it does again.
func (d *Dispatcher) logSuspended(w *workerState, suspended bool, listener, why string) {
	if suspended {
		w.outage.begin(d.cfg.Logger, "worker left alone for a while, and again as long as that goes on", "worker", w.worker.Name, "listener", listener, "why", why)
	} else {
		w.outage.end(d.cfg.Logger, "worker takes connections again", "worker", w.worker.Name)
	}
}

// actions is what is to be done once the lock is released.
type actions struct {
	offers  []*pendingConn // to be offered
	drops   []*pendingConn // to be closed
	handles []*fdipc.Handle
	times   []byte // when each of handles was accepted
	fault   string // what a user's function panicked with
	faultAt *listenerState
}

// updateWorkerLocked follows up on a change at a worker, and at l if it is not nil:
// it places what waits, ends what is over, and wakes who can go on.
func (d *Dispatcher) updateWorkerLocked(acts *actions, w *workerState, l *listenerState) {
	d.updateListenerLocked(acts, l)
	for _, m := range w.memberships {
		if m.listener != l {
			d.updateListenerLocked(acts, m.listener)
		}
	}
	if !w.suspendedUntil.IsZero() && (d.timerAt.IsZero() || w.suspendedUntil.Before(d.timerAt)) {
		d.timerAt = w.suspendedUntil
		d.timer.Reset(time.Until(w.suspendedUntil))
	}
}

// updateListenerLocked looks at one listener again.
func (d *Dispatcher) updateListenerLocked(acts *actions, l *listenerState) {
	if l == nil {
		return
	}
	for p := d.balancer.place(l); p != nil; p = d.balancer.place(l) {
		p.via = p.offeredTo.worker.link
		acts.offers = append(acts.offers, p)
	}
	if l.fault != "" {
		acts.fault, acts.faultAt, l.fault = l.fault, l, ""
	}
	d.statsChangedLocked()
	if a := d.acceptors[l.number]; a != nil {
		a.updateLocked(acts)
	}
}

// run offers what was placed, one frame a worker, and closes what was dropped.
// What cannot be sent is placed anew. It does not block.
func (d *Dispatcher) run(acts *actions) {
	if acts.fault != "" {
		d.logs.warn(functionFailedText, "listener", acts.faultAt.name, "err", acts.fault)
		acts.fault, acts.faultAt = "", nil
	}
	for len(acts.offers)+len(acts.drops) > 0 {
		dropped := acts.drops
		acts.drops = nil
		for _, p := range dropped {
			why := errDropped
			if p.peek == peekReset {
				why = errReset
			}
			traceUnserved(p, why)
			_ = p.h.Close()
		}
		var again actions
		for i, p := range acts.offers {
			if p == nil {
				continue
			}
			// Once an offer is under way its connection is no longer ours: it may be
			// settled and placed again before TrySend returns. So all of a group
			// are taken out first.
			m, via := p.offeredTo, p.via
			acts.handles, acts.times = acts.handles[:0], acts.times[:0]
			for j, p := range acts.offers[i:] {
				if p != nil && p.offeredTo == m && p.via == via {
					traceOffer(p)
					acts.handles = append(acts.handles, p.h)
					acts.times = binary.LittleEndian.AppendUint64(acts.times, uint64(p.at))
					acts.offers[i+j] = nil
				}
			}
			err := via.TrySend(&fdipc.Frame{Kind: KindOffer, Target: m.listener.number, Payload: acts.times, Handles: acts.handles})
			if err != nil {
				d.unsent(&again, m, via, acts.handles, err)
			}
			clear(acts.handles)
		}
		acts.offers, acts.drops = append(acts.offers[:0], again.offers...), again.drops
	}
}

// functionFailed counts a failure of a user's function that was called without the lock, and reports it.
func (d *Dispatcher) functionFailed(l *listenerState, what string) {
	d.count(func() { l.counts.Faults++ })
	d.logs.warn(functionFailedText, "listener", l.name, "err", what)
}

const functionFailedText = "the listener's function failed, connections are placed without it"

// unsent takes back offers that could not be sent by a link. The handles are still ours.
func (d *Dispatcher) unsent(acts *actions, m *membership, via *fdipc.Conn, handles []*fdipc.Handle, err error) {
	for _, h := range handles {
		traceSettled(h.Tag.(*pendingConn), fdipc.Returned, fdipc.ReasonNone)
	}
	full := errors.Is(err, fdipc.ErrFull)
	d.mu.Lock()
	over := !full && m.worker.link == via // else the worker has another by now
	before := m.worker.suspendedUntil
	for _, h := range handles {
		d.balancer.unsent(h.Tag.(*pendingConn), over, time.Now())
	}
	suspended := m.worker.suspendedUntil.After(before)
	d.updateWorkerLocked(acts, m.worker, m.listener)
	d.mu.Unlock()
	if suspended {
		d.logSuspended(m.worker, true, m.listener.name, "its link takes no more")
	}
	if !full {
		d.logs.warn("worker cannot be reached", "worker", m.worker.worker.Name, "listener", m.listener.name, "err", err)
	}
}

// endSuspensions ends the suspensions that are over.
func (d *Dispatcher) endSuspensions() {
	var acts actions
	d.mu.Lock()
	d.timerAt = d.balancer.endSuspensions(time.Now())
	if !d.timerAt.IsZero() && !d.closed {
		d.timer.Reset(time.Until(d.timerAt))
	}
	for _, a := range d.acceptors {
		d.updateListenerLocked(&acts, a.listener)
	}
	d.mu.Unlock()
	d.run(&acts)
}

// settleLinks learns of claims now, rather than at the links' next tick, from the
// workers of l that have used up half their window, or from all. So one that
// keeps up never looks full, and keeps its place in the order. It calls Settled,
// hence is for the acceptor's goroutine only.
func (d *Dispatcher) settleLinks(l *listenerState, all bool) {
	var few [16]*fdipc.Conn
	links := few[:0]
	d.mu.Lock()
	for _, m := range l.busy {
		if m.worker.link != nil && (all || m.counts.Offered > l.limits.Window/2) {
			links = append(links, m.worker.link)
		}
	}
	d.mu.Unlock()
	for _, c := range links {
		c.ResolveOffers()
	}
}
