package coppice

import (
	"golang.org/x/sys/unix"
)

// sentByTerminal reports whether this process is a background job that may not write to its
// terminal (stty tostop): each try is answered by a SIGTTOU, and with that caught,
// tried again for ever.
func sentByTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it has none
	}
	defer unix.Close(fd)
	front, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil || front == unix.Getpgrp() {
		return false
	}
	modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil && modes.Lflag&unix.TOSTOP != 0
}
