package shm

import (
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic returns the time of the machine's monotonic clock in nanoseconds, the same in every
// process. Package time's clock starts at a different point in each process, so origin holds the
// difference.
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
