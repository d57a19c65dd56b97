package hosts

import (
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
)

// A clock is a host's: CLOCK_BOOTTIME, or package time's in tests with virtual time.
type clock struct {
	now   func() lease.Time
	alarm func(ring func()) (alarm, error)
}

// An alarm rings when its time has come. set may be called by any goroutine, 0: it does not ring;
// stop ends it, waits for ring, and is called once, after the last set.
type alarm interface {
	set(at lease.Time)
	stop()
}

// timeAlarm is an alarm of package time.
type timeAlarm struct {
	mu    sync.Mutex
	rings sync.WaitGroup
	now   func() lease.Time
	ring  func()
	timer *time.Timer
}

func newTimeAlarm(now func() lease.Time, ring func()) *timeAlarm {
	return &timeAlarm{now: now, ring: ring}
}

func (a *timeAlarm) set(at lease.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clearLocked()
	if at != 0 {
		a.rings.Add(1)
		a.timer = time.AfterFunc(max(0, time.Duration(at-a.now())), func() {
			defer a.rings.Done()
			a.ring()
		})
	}
}

func (a *timeAlarm) clearLocked() {
	if a.timer != nil && a.timer.Stop() {
		a.rings.Done()
	}
	a.timer = nil
}

func (a *timeAlarm) stop() {
	a.mu.Lock()
	a.clearLocked()
	a.mu.Unlock()
	a.rings.Wait()
}
