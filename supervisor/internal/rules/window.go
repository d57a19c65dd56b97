package rules

import "time"

// Window holds the times of the latest restarts, oldest first. One window is shared by all children
// of a supervisor (supervisor(3)). A copy of the slice may be read while the window goes on: what
// it shows is not written again.
type Window []Time

// drop forgets what is older than period. The bound is inclusive: an entry that is exactly period
// old still counts. OTP counts in whole seconds, so its real window is up to a second longer.
func (w *Window) drop(now Time, period time.Duration) {
	for len(*w) > 0 && (*w)[0] < now-Time(period) {
		*w = (*w)[1:]
	}
}

// Used returns how many entries are within a period that ends now.
func (w Window) Used(now Time, period time.Duration) int {
	w.drop(now, period)
	return len(w)
}

// add enters a restart at now.
func (w *Window) add(now Time) { *w = append(*w, now) }
