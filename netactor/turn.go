package netactor

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// Settled takes the outcome of an offer, for fdipc.Config.Settled of every
// link. It is false, and does nothing, for a handle that is not from here.
func (d *Dispatcher) Settled(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) bool {
	t, ok := h.Tag.(*ticket)
	if !ok {
		return false
	}
	reason := h.Reason()
	t.traceSettled(o, reason)
	var reset bool
	var now time.Time
	if o != fdipc.Claimed {
		reset, now = t.clientReset(), time.Now()
	}
	var w turn
	d.mu.Lock()
	a, l := t.s.a, t.l
	before, strikes := a.until, a.strikes
	all := d.books.settled(t, o, reason, reset, now)
	suspended, well := a.until.After(before), strikes > 0 && a.strikes == 0
	if reset {
		t.seen = seenGone
		w.dropped = append(w.dropped, t)
	}
	if all {
		d.followLocked(&w, a, l)
	} else {
		d.lookLocked(&w, l)
	}
	why := a.why
	d.mu.Unlock()
	if suspended || well {
		d.tellSuspended(a, suspended, l.name, suspendedText(why))
	}
	d.do(&w)
	return true
}

// tellSuspended says that a worker does not take what it is offered, and when it does again.
func (d *Dispatcher) tellSuspended(a *account, suspended bool, listener, why string) {
	d.telling.Lock()
	defer d.telling.Unlock()
	if suspended {
		a.trouble.begin(d.cfg.Logger, "worker left alone for a while, and again as long as that goes on", "worker", a.worker.Name, "listener", listener, "why", why)
	} else {
		a.trouble.over(d.cfg.Logger, "worker takes connections again", "worker", a.worker.Name)
	}
}

// turn is what is to be done once the lock is released.
type turn struct {
	placed  []*ticket // to be offered
	dropped []*ticket // to be closed
	handles []*fdipc.Handle
	times   []byte // when each of handles was accepted
	fault   string // what a user's function panicked with
	at      *ledger
}

// followLocked follows up on a change at a worker, and at l if it is not nil:
// it places what waits, ends what is over, and wakes who can go on.
func (d *Dispatcher) followLocked(w *turn, a *account, l *ledger) {
	d.lookLocked(w, l)
	for _, s := range a.seats {
		if s.l != l {
			d.lookLocked(w, s.l)
		}
	}
	if !a.until.IsZero() && (d.wakeAt.IsZero() || a.until.Before(d.wakeAt)) {
		d.wakeAt = a.until
		d.timer.Reset(time.Until(a.until))
	}
}

// lookLocked looks at one listener again.
func (d *Dispatcher) lookLocked(w *turn, l *ledger) {
	if l == nil {
		return
	}
	for t := d.books.place(l); t != nil; t = d.books.place(l) {
		t.via = t.s.a.link
		w.placed = append(w.placed, t)
	}
	if l.fault != "" {
		w.fault, w.at, l.fault = l.fault, l, ""
	}
	d.dirtyLocked()
	if a := d.acceptors[l.number]; a != nil {
		a.lookLocked(w)
	}
}

// do offers what was placed, one frame a worker, and closes what was dropped.
// What cannot be sent is placed anew. It does not block.
func (d *Dispatcher) do(w *turn) {
	if w.fault != "" {
		d.gate.warn(functionFailed, "listener", w.at.name, "err", w.fault)
		w.fault, w.at = "", nil
	}
	for len(w.placed)+len(w.dropped) > 0 {
		dropped := w.dropped
		w.dropped = nil
		for _, t := range dropped {
			why := errDropped
			if t.seen == seenGone {
				why = errReset
			}
			t.traceUnserved(why)
			_ = t.h.Close()
		}
		var again turn
		for i, t := range w.placed {
			if t == nil {
				continue
			}
			// Once an offer is under way its ticket is no longer ours: it may be
			// settled and placed again before TrySend returns. So all of a group
			// are taken out first.
			s, via := t.s, t.via
			w.handles, w.times = w.handles[:0], w.times[:0]
			for j, t := range w.placed[i:] {
				if t != nil && t.s == s && t.via == via {
					t.traceOffer()
					w.handles = append(w.handles, t.h)
					w.times = binary.LittleEndian.AppendUint64(w.times, uint64(t.at))
					w.placed[i+j] = nil
				}
			}
			err := via.TrySend(&fdipc.Frame{Kind: KindOffer, Target: s.l.number, Payload: w.times, Handles: w.handles})
			if err != nil {
				d.unsent(&again, s, via, w.handles, err)
			}
			clear(w.handles)
		}
		w.placed, w.dropped = append(w.placed[:0], again.placed...), again.dropped
	}
}

// faulty counts a failure of a user's function that was called without the lock, and reports it.
func (d *Dispatcher) faulty(l *ledger, what string) {
	d.count(func() { l.counts.Faults++ })
	d.gate.warn(functionFailed, "listener", l.name, "err", what)
}

const functionFailed = "the listener's function failed, connections are placed without it"

// unsent takes back offers that could not be sent by a link. The handles are still ours.
func (d *Dispatcher) unsent(w *turn, s *seat, via *fdipc.Conn, handles []*fdipc.Handle, err error) {
	for _, h := range handles {
		h.Tag.(*ticket).traceSettled(fdipc.Returned, fdipc.ReasonNone)
	}
	full := errors.Is(err, fdipc.ErrFull)
	d.mu.Lock()
	over := !full && s.a.link == via // else the worker has another by now
	before := s.a.until
	for _, h := range handles {
		d.books.unsent(h.Tag.(*ticket), over, time.Now())
	}
	suspended := s.a.until.After(before)
	d.followLocked(w, s.a, s.l)
	d.mu.Unlock()
	if suspended {
		d.tellSuspended(s.a, true, s.l.name, "its link takes no more")
	}
	if !full {
		d.gate.warn("worker cannot be reached", "worker", s.a.worker.Name, "listener", s.l.name, "err", err)
	}
}

// wake ends the suspensions that are over.
func (d *Dispatcher) wake() {
	var w turn
	d.mu.Lock()
	d.wakeAt = d.books.wake(time.Now())
	if !d.wakeAt.IsZero() && !d.closed {
		d.timer.Reset(time.Until(d.wakeAt))
	}
	for _, a := range d.acceptors {
		d.lookLocked(&w, a.l)
	}
	d.mu.Unlock()
	d.do(&w)
}

// hear learns of claims now, rather than at the links' next tick, from the
// workers of l that have used up half their window, or from all. So one that
// keeps up never looks full, and keeps its place in the order. It calls Settled,
// hence is for the acceptor's goroutine only.
func (d *Dispatcher) hear(l *ledger, all bool) {
	var few [16]*fdipc.Conn
	links := few[:0]
	d.mu.Lock()
	for _, s := range l.busy {
		if s.a.link != nil && (all || s.counts.Offered > l.limits.Window/2) {
			links = append(links, s.a.link)
		}
	}
	d.mu.Unlock()
	for _, c := range links {
		c.Settle()
	}
}
