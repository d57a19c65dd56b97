package faults

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Outage is an operation that fails for a while, such as accept without descriptors. It is logged
// once when it begins and once when it is over, at most once a minute; Begin returns how long to
// wait before the next try. The zero value is ready for use. All methods may be called by any
// goroutine.
type Outage struct {
	First time.Duration // the pause after the first failure; zero means 20 ms. Set before use

	on atomic.Bool // the outage lasts

	mu       sync.Mutex
	since    time.Time
	failures int
	tries    int       // failures since the last Progress
	logged   time.Time // when a Begin was logged last
	logging  bool      // the Begin of this outage was logged
}

const (
	FirstPause  = 20 * time.Millisecond
	maxPause    = time.Second
	outageEvery = time.Minute // limits the lines about an operation that fails and works by turns
)

// PauseAfter returns the pause after the given number of tries: it doubles from first to maxPause.
func PauseAfter(tries int, first time.Duration) time.Duration {
	return min(first<<min(tries, 10), maxPause)
}

// Begin notes a failure, and returns the pause before the next try.
func (o *Outage) Begin(log *slog.Logger, msg string, args ...any) (pause time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	first := o.First
	if first == 0 {
		first = FirstPause
	}
	pause = PauseAfter(o.tries, first)
	o.tries++
	o.failures++
	if o.on.Swap(true) {
		return pause
	}
	o.since = time.Now()
	if o.logging = o.logged.IsZero() || time.Since(o.logged) >= outageEvery; o.logging {
		o.logged = o.since
		log.Warn(msg, args...)
	}
	return pause
}

// Lasts reports whether the outage lasts. It is cheap: on a path that often succeeds, call it
// before End.
func (o *Outage) Lasts() bool { return o.on.Load() }

// Progress notes a success that need not end the outage: the next pause is First again.
func (o *Outage) Progress() {
	if o.Lasts() {
		o.mu.Lock()
		o.tries = 0
		o.mu.Unlock()
	}
}

// End notes a success, which ends the outage.
func (o *Outage) End(log *slog.Logger, msg string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.on.Swap(false) {
		return
	}
	if o.logging {
		log.Info(msg, append(args, "failures", o.failures, "after", time.Since(o.since).Round(time.Millisecond))...)
	}
	o.failures, o.tries, o.logging = 0, 0, false
}
