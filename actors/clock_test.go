package actors_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// fakeClock is a [supervisor.Clock] that the test moves.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers []*fakeTimer  // guarded by mu
	set    chan struct{} // closed and renewed when a timer is set
}

type fakeTimer struct {
	clock *fakeClock
	at    time.Time
	f     func()
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), set: make(chan struct{})}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) AfterFunc(d time.Duration, f func()) interface{ Stop() bool } {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{clock: c, at: c.now.Add(d), f: f}
	if d <= 0 {
		go f() // ends at once: f only wakes a supervisor
		return t
	}
	c.timers = append(c.timers, t)
	close(c.set)
	c.set = make(chan struct{})
	return t
}

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return t.clock.removeLocked(t)
}

func (c *fakeClock) removeLocked(t *fakeTimer) bool {
	n := len(c.timers)
	c.timers = slices.DeleteFunc(c.timers, func(o *fakeTimer) bool { return o == t })
	return len(c.timers) < n
}

// advance moves the clock by d and calls what falls due, in order.
func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.now.Add(d)
	for {
		var next *fakeTimer
		for _, t := range c.timers {
			if !t.at.After(end) && (next == nil || t.at.Before(next.at)) {
				next = t
			}
		}
		if next == nil {
			break
		}
		c.removeLocked(next)
		c.now = next.at
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
}

// waitTimers waits until at least n timers are set. The end of ctx ends the wait.
func (c *fakeClock) waitTimers(ctx context.Context, n int) error {
	for {
		c.mu.Lock()
		have, set := len(c.timers), c.set
		c.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-set:
		case <-ctx.Done():
			return fmt.Errorf("%d timers are set, not %d: %w", have, n, ctx.Err())
		}
	}
}
