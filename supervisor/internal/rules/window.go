package rules

import "time"

// Window holds the times of the latest restarts, oldest first, in a ring. One
// window is shared by all children of a supervisor (supervisor(3)).
type Window struct {
	Ring  []Time
	First int
	Len   int
}

// drop forgets what is older than period. The bound is inclusive: an entry that is exactly period
// old still counts. OTP counts in whole seconds, so its real window is up to a second longer.
func (w *Window) drop(now Time, period time.Duration) {
	for w.Len > 0 && w.Ring[w.First] < now-Time(period) {
		w.First = (w.First + 1) % len(w.Ring)
		w.Len--
	}
}

// add enters a restart at now. The ring doubles when it is full.
func (w *Window) add(now Time) {
	if w.Len == len(w.Ring) {
		ring := make([]Time, max(4, 2*w.Len))
		n := copy(ring, w.Ring[w.First:])
		copy(ring[n:], w.Ring[:w.First])
		w.Ring, w.First = ring, 0
	}
	w.Ring[(w.First+w.Len)%len(w.Ring)] = now
	w.Len++
}
