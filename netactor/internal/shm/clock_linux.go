package shm

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic is the machine's monotonic clock in nanoseconds, the same in every process:
// package time's own begins anew in each, so it is asked once how far it is off.
func Monotonic() int64 { return origin + int64(time.Since(epoch)) }

var (
	epoch  = time.Now()
	origin = func() int64 {
		var ts unix.Timespec
		if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
			return 0
		}
		return ts.Nano() - int64(time.Since(epoch))
	}()
)
