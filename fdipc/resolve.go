package fdipc

type resolution struct {
	h *Handle
	o Outcome
}

// maxStep is what a pause between two looks counts for at most.
const maxStep = 4 * tick

// elapseLocked moves the clock of the deadlines on. It is the time in which this process was there to see an
// answer: when it was stopped itself, or the whole machine was, the peer may have had no chance to
// answer either, and is not called stalled for it.
func (o *offers) advanceLocked(t int64) {
	o.clock += min(max(t-o.clockAt, 0), int64(maxStep))
	o.clockAt = max(t, o.clockAt)
}

// endLocked ends the offer in slot s. If it was claimed, releaseLocked must follow.
func (o *offers) resolveLocked(s uint32, out Outcome) {
	f := &o.slots[s]
	h := f.h
	last := o.live[len(o.live)-1]
	o.live[f.at] = last
	o.slots[last].at = f.at
	o.live = o.live[:len(o.live)-1]
	f.h = nil
	o.free = append(o.free, s)
	h.resolvedAt = 0
	if o.table != nil && out != Returned && !h.Trace.none() {
		h.resolvedAt = o.table.time(s)
	}
	st := &o.c.stats
	switch out {
	case Claimed:
		o.claimed++
		if o.c.memory { // there is but one copy, and the receiver has it
			if o.table != nil {
				o.table.store(s, word(f.seq, 0, wordReleased))
			}
		} else if x, ok := h.closeJob(); ok {
			x.t, x.at = o.table, offerID{s, f.seq}
			if h.holdsPort() {
				x.close()
				x.markReleased()
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

// sweepLocked reads the peer's answers and takes back what has run out.
func (o *offers) sweepLocked() {
	t := o.clock
	if o.table == nil {
		for i := len(o.live) - 1; i >= 0; i-- {
			f := &o.slots[o.live[i]]
			if f.deadline != 0 && t > f.deadline && !f.loading {
				// Without a table it cannot be taken back, not even one that still waits to be
				// sent: the peer could not tell a stand-in from the real one.
				if !o.stalled {
					o.stalled = true
					o.c.stats.stalls.Add(1)
				}
			}
		}
		o.creditLocked()
		return
	}
	for i := len(o.live) - 1; i >= 0; i-- {
		s := o.live[i]
		f := &o.slots[s]
		if f.loading {
			continue
		}
		switch w := o.table.load(s); {
		case w == word(f.seq, 0, wordOffered):
			if f.deadline == 0 || t <= f.deadline {
				continue
			}
			// The sign of life is read first: whatever the peer does after it lost
			// the offer must show.
			beat := o.table.beat.Load()
			if !o.table.swap(s, w, word(f.seq, 0, wordRevoked)) {
				i++ // it answered just now: look again
				continue
			}
			if !o.stalled {
				o.stalled, o.beatAt = true, beat
				o.c.stats.stalls.Add(1)
			}
			o.c.stats.revoked.Add(1)
			o.resolveLocked(s, Returned)
		case w == word(f.seq, 0, wordClaimed):
			o.resolveLocked(s, Claimed)
		case uint32(w>>32) == f.seq && w&0xffff00ff == wordRefused:
			f.h.reason = uint8(w >> 8)
			o.resolveLocked(s, Refused)
		default:
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

// answer is the peer's answer by frame, without a table.
func (o *offers) answer(r offerID, reason, state uint8) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.table != nil || int(r.slot) >= len(o.slots) {
		return wireError("claim of slot %d", r.slot)
	}
	f := &o.slots[r.slot]
	if f.h == nil || f.seq != r.seq || !f.sent && !f.loading {
		return wireError("claim of slot %d, which is not on offer", r.slot)
	}
	switch state {
	case wordClaimed:
		o.resolveLocked(r.slot, Claimed)
		o.releaseLocked()
	case wordRefused:
		f.h.reason = reason
		o.resolveLocked(r.slot, Refused)
	default:
		return wireError("claim with state %d", state)
	}
	o.stalled = false
	o.creditLocked()
	o.kickLocked()
	return nil
}

// settle sweeps and runs the callbacks. It runs on the timer's goroutine and on that of the
// control lane.
func (o *offers) poll() {
	o.callback.Lock()
	defer o.callback.Unlock()
	o.mu.Lock()
	o.armed = false
	o.advanceLocked(now())
	o.sweepLocked()
	done := o.resolved
	o.resolved, o.reuse = o.reuse, nil
	if len(o.live) > 0 || o.stalled && o.table != nil && o.availableLocked() == 0 {
		o.armLocked(o.c.cfg.tick)
	}
	o.mu.Unlock()
	o.notify(done)
	clear(done)
	o.reuse = done[:0]
}

// releaseLocked has the copies of claimed handles closed.
func (o *offers) releaseLocked() {
	o.c.closers.addLazily(o.releases...)
	clear(o.releases)
	o.releases = o.releases[:0]
}

func (o *offers) notify(done []resolution) {
	for _, d := range done {
		d.h.resolve(d.o)
		switch {
		case o.c.cfg.Resolved != nil:
			o.c.cfg.Resolved(o.c, d.h, d.o)
		case d.o != Claimed:
			d.h.Close()
		}
	}
}

// byFrames says that there are offers whose claims can only come by frame.
func (o *offers) byFrames() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.table == nil && len(o.live) > 0
}

// end settles what can be settled, when the Conn has ended. It says whether all is.
// gone says that the peer is known to be dead.
func (o *offers) close(gone bool) (all bool) {
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
		if o.table == nil {
			if gone || !f.sent {
				o.resolveLocked(s, Returned)
			}
			continue
		}
		if o.table.swap(s, word(f.seq, 0, wordOffered), word(f.seq, 0, wordRevoked)) {
			o.resolveLocked(s, Returned)
		} else {
			o.sweepLocked() // it answered just now
			i = len(o.live)
		}
	}
	o.creditLocked()
	done := o.resolved
	o.resolved = nil
	all = len(o.live) == 0
	o.mu.Unlock()
	o.notify(done)
	return all
}
