//go:build !linux

package shm

import "time"

var epoch = time.Now()

// Monotonic returns the time of a monotonic clock in nanoseconds; only one process uses it.
func Monotonic() int64 { return int64(time.Since(epoch)) }
