package fdipc

import "github.com/coppice-go/coppice/fdipc/internal/claims"

// An offer is resolved when it was claimed, refused, or taken back. The sender finds out by reading
// the claim table: at a tick, when it is short of room, and when the peer wakes it.

// resolution is an offer that was resolved, and of which Config.Resolved has not heard yet.
type resolution struct {
	h *Handle
	o Outcome
}

// maxStep is what a pause between two looks counts for at most.
const maxStep = 4 * tick

// advanceLocked moves the clock of the deadlines on to time t. The clock shows the time in which
// this process was there to see an answer. While this process was stopped, or the whole machine
// was, the peer may have had no chance to answer either, and is not called stalled for it.
func (o *offerRecord) advanceLocked(t int64) {
	o.clock += min(max(t-o.clockAt, 0), int64(maxStep))
	o.clockAt = max(t, o.clockAt)
}

// resolveLocked ends the offer in slot s. If it was claimed, releaseLocked must follow.
func (o *offerRecord) resolveLocked(s uint32, out Outcome) {
	f := &o.slots[s]
	h := f.h
	last := o.live[len(o.live)-1]
	o.live[f.at] = last
	o.slots[last].at = f.at
	o.live = o.live[:len(o.live)-1]
	f.h = nil
	o.free = append(o.free, s)
	h.resolvedAt = 0
	if out != Returned && !h.Trace.none() {
		h.resolvedAt = o.table.Time(s)
	}
	st := &o.c.stats
	switch out {
	case Claimed:
		o.claimed++
		if o.c.memory { // there is but one copy, and the receiver has it
			o.table.Store(s, claims.Word(f.seq, 0, claims.Released))
		} else if x, ok := h.closeItem(); ok {
			x.Place = claims.Place{Table: o.table, Slot: s, Seq: f.seq}
			if h.holdsPort() {
				x.Close()
				x.Place.Release()
			} else {
				o.releases = append(o.releases, x)
			}
		}
		if o.c.cfg.Resolved == nil {
			return
		}
	case Refused:
		st.refused.Add(1)
	case Returned:
		st.returned.Add(1)
	}
	o.resolved = append(o.resolved, resolution{h, out})
}

// sweepLocked reads the peer's answers and takes back the offers that have run out.
func (o *offerRecord) sweepLocked() {
	t := o.clock
	for i := len(o.live) - 1; i >= 0; i-- {
		s := o.live[i]
		f := &o.slots[s]
		if f.loading {
			continue
		}
		switch w := o.table.Load(s); {
		case w == claims.Word(f.seq, 0, claims.Offered):
			if f.deadline == 0 || t <= f.deadline {
				continue
			}
			// The sign of life is read first: whatever the peer does after it lost
			// the offer must show.
			beat := o.table.Beat()
			if !o.table.Swap(s, w, claims.Word(f.seq, 0, claims.Revoked)) {
				i++ // the peer answered just now: look again
				continue
			}
			if !o.stalled {
				o.stalled, o.beatAt = true, beat
				o.c.stats.stalls.Add(1)
			}
			o.c.stats.revoked.Add(1)
			o.resolveLocked(s, Returned)
		case w == claims.Word(f.seq, 0, claims.Claimed):
			o.resolveLocked(s, Claimed)
		default:
			if reason, ok := claims.Refusal(w, f.seq); ok {
				f.h.reason = reason
				o.resolveLocked(s, Refused)
				continue
			}
			// The peer wrote what it may not write. The descriptor may be in use
			// there, so it is not offered again.
			o.resolveLocked(s, Claimed)
			o.c.stats.corrupt.Add(1)
			go o.c.fail(wireError("claim table: word %#x in slot %d", w, s))
		}
	}
	o.releaseLocked()
	if len(o.free) > 0 {
		o.creditLocked()
	}
}

// poll sweeps and runs the callbacks. It runs on the timer's goroutine, on that of the control
// lane, and on that of a caller of ResolveOffers.
func (o *offerRecord) poll() {
	o.callback.Lock()
	o.pollLocked()
	o.callback.Unlock()
}

// pollLocked is poll; it needs callback.
func (o *offerRecord) pollLocked() {
	o.mu.Lock()
	o.armed = false
	o.advanceLocked(now())
	o.sweepLocked()
	resolved := o.resolved
	o.resolved, o.reuse = o.reuse, nil
	if len(o.live) > 0 || o.stalled && o.availableLocked() == 0 {
		o.armLocked(o.c.cfg.tick)
	}
	o.mu.Unlock()
	o.notify(resolved)
	clear(resolved)
	o.reuse = resolved[:0]
}

// releaseLocked has the copies of claimed handles closed.
func (o *offerRecord) releaseLocked() {
	o.c.closers.AddLazily(o.releases...)
	clear(o.releases)
	o.releases = o.releases[:0]
}

// notify gives the handles back to their owner, and calls Config.Resolved for each.
func (o *offerRecord) notify(resolved []resolution) {
	for _, r := range resolved {
		r.h.resolve(r.o)
		switch {
		case o.c.cfg.Resolved != nil:
			o.c.cfg.Resolved(o.c, r.h, r.o)
		case r.o != Claimed:
			r.h.Close()
		}
	}
}

// close resolves all offers, when the Conn has ended: what the peer has not answered is taken back.
// No callback runs after it.
func (o *offerRecord) close() {
	o.callback.Lock()
	defer o.callback.Unlock()
	o.mu.Lock()
	o.ended = true
	o.timer.Stop()
	for o.loaded > 0 {
		o.idle.Wait()
	}
	o.sweepLocked()
	for i := len(o.live) - 1; i >= 0; i-- {
		s := o.live[i]
		f := &o.slots[s]
		if o.table.Swap(s, claims.Word(f.seq, 0, claims.Offered), claims.Word(f.seq, 0, claims.Revoked)) {
			o.resolveLocked(s, Returned)
		} else {
			o.sweepLocked() // the peer answered just now
			i = len(o.live)
		}
	}
	o.creditLocked()
	resolved := o.resolved
	o.resolved = nil
	o.mu.Unlock()
	o.notify(resolved)
}
