package supervisortest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

// Child is a fake child for a running supervisor. It comes up at once, ends
// when asked to, and does whatever else the test says. All methods may be
// called from any goroutine.
type Child struct {
	mu     sync.Mutex
	fails  []error // guarded by mu; outcomes of the next starts
	stop   *supervisor.Reason
	ignore bool
	cur    *instance
	starts int
	came   chan struct{} // closed and renewed when an instance comes up
}

// NewChild returns a fake child. Use it as ChildSpec.Start of one spec.
func NewChild() *Child { return &Child{came: make(chan struct{})} }

// FailStarts sets the outcomes of the next starts; nil is a success. After
// them starts succeed.
func (c *Child) FailStarts(errs ...error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fails = slices.Clone(errs)
}

// IgnoreStop makes the child not react to being asked to stop.
func (c *Child) IgnoreStop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ignore = true
}

// StopWith makes the child end for reason r when asked to stop, instead of Shutdown.
func (c *Child) StopWith(r supervisor.Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = &r
}

// Exit ends the running instance for reason r. It reports whether there was one.
func (c *Child) Exit(r supervisor.Reason) bool {
	c.mu.Lock()
	i := c.cur
	c.mu.Unlock()
	return i != nil && i.end(r)
}

// Starts returns how many instances have come up so far.
func (c *Child) Starts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.starts
}

// WaitStarts waits until n instances have come up, or for the end of ctx.
func (c *Child) WaitStarts(ctx context.Context, n int) error {
	for {
		c.mu.Lock()
		have, came := c.starts, c.came
		c.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return fmt.Errorf("supervisortest: %d instances came up, not %d: %w", have, n, ctx.Err())
		}
	}
}

// Start implements [supervisor.Starter].
func (c *Child) Start(context.Context, supervisor.Incarnation) (supervisor.Instance, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.fails) > 0 {
		err := c.fails[0]
		if c.fails = c.fails[1:]; err != nil {
			return nil, err
		}
	}
	c.cur = &instance{c: c, done: make(chan struct{})}
	c.starts++
	close(c.came)
	c.came = make(chan struct{})
	return c.cur, nil
}

// instance is one life of a Child.
type instance struct {
	supervisor.Base
	c      *Child
	once   sync.Once
	done   chan struct{}
	reason supervisor.Reason // set before done is closed
}

func (i *instance) end(r supervisor.Reason) (ended bool) {
	i.once.Do(func() {
		i.reason = r
		close(i.done)
		ended = true
	})
	return ended
}

func (i *instance) Done() <-chan struct{}     { return i.done }
func (i *instance) Reason() supervisor.Reason { return i.reason }
func (i *instance) Kill()                     { i.end(supervisor.Reason{Kind: supervisor.Killed}) }

func (i *instance) Stop() {
	i.c.mu.Lock()
	ignore, r := i.c.ignore, supervisor.Reason{Kind: supervisor.Shutdown}
	if i.c.stop != nil {
		r = *i.c.stop
	}
	i.c.mu.Unlock()
	if !ignore {
		i.end(r)
	}
}

// Clock is a clock that moves only when told to. Inside a testing/synctest
// bubble it is not needed. The zero value is not usable; see [NewClock].
type Clock struct {
	mu     sync.Mutex
	now    time.Time
	timers []*fakeTimer  // guarded by mu
	set    chan struct{} // closed and renewed when a timer is set
}

type fakeTimer struct {
	c  *Clock
	at time.Time
	f  func()
}

// NewClock returns a clock that stands at some time in the past.
func NewClock() *Clock {
	return &Clock{now: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), set: make(chan struct{})}
}

// Now implements [supervisor.Clock].
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// AfterFunc implements [supervisor.Clock].
func (c *Clock) AfterFunc(d time.Duration, f func()) interface{ Stop() bool } {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &fakeTimer{c: c, at: c.now.Add(d), f: f}
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
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	n := len(t.c.timers)
	t.c.timers = slices.DeleteFunc(t.c.timers, func(o *fakeTimer) bool { return o == t })
	return len(t.c.timers) < n
}

// Advance moves the clock by d and calls what falls due, in order.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
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
		c.timers = slices.DeleteFunc(c.timers, func(o *fakeTimer) bool { return o == next })
		c.now = next.at
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// WaitTimers waits until at least n timers are set: until a supervisor waits
// for a delay, say. The end of ctx ends the wait.
func (c *Clock) WaitTimers(ctx context.Context, n int) error {
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
			return fmt.Errorf("supervisortest: %d timers are set, not %d: %w", have, n, ctx.Err())
		}
	}
}
