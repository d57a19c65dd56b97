package netactor

import (
	"errors"
	"syscall"
)

// isShortage reports whether err says that something runs short which may come free at any time:
// descriptors, or the kernel's memory.
func isShortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Log lines of a process that does not get what other processes send.
const (
	handlesLost    = "out of descriptors: what other processes hand over goes back to them"
	handlesArrived = "descriptors are there again"
)
