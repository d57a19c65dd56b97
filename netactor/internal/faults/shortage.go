package faults

import (
	"errors"
	"syscall"
)

// IsShortage reports whether err says that something runs short which may come free at any time:
// descriptors, or the kernel's memory.
func IsShortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Log lines of a process that does not get what other processes send.
const (
	HandlesLost    = "out of descriptors: what other processes hand over goes back to them"
	HandlesArrived = "descriptors are there again"
)
