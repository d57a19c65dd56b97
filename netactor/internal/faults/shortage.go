package faults

import (
	"errors"
	"syscall"
)

// IsShortage reports whether err means a shortage that may end at any time: of descriptors, or of
// kernel memory.
func IsShortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Log messages of a process that lacks descriptors for handles that other processes send.
const (
	HandlesLost    = "out of descriptors: handles from other processes go back to them"
	HandlesArrived = "descriptors are available again"
)
