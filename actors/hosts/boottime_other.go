//go:build !linux

package hosts

import (
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
)

var started = time.Now()

// boottime is Go's monotonic time: whether it goes on while the system is suspended differs between
// systems.
func boottime() lease.Time { return lease.Time(time.Since(started)) + 1 }

func newBootAlarm(ring func()) (alarm, error) { return newTimeAlarm(boottime, ring), nil }
