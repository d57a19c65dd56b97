//go:build !linux

package shm

import "time"

var epoch = time.Now()

// monotonic is a monotonic clock in nanoseconds; all that it is asked by is one process.
func Monotonic() int64 { return int64(time.Since(epoch)) }
