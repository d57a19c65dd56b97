package coppice

import (
	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/signalrules"
)

// sentByTerminal reports whether this process is a background job that its terminal may have sent
// a signal: SIGTTIN for a read, SIGTTOU for a write if it may not write (stty tostop).
func sentByTerminal(sig signalrules.Signal) bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it has no terminal
	}
	defer unix.Close(fd)
	front, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil || front == unix.Getpgrp() {
		return false
	}
	if sig == signalrules.More {
		return true
	}
	modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil && modes.Lflag&unix.TOSTOP != 0
}
