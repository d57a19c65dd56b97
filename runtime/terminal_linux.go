package coppice

import (
	"golang.org/x/sys/unix"
)

// sentByTerminal reports whether this process is a background job that may not write to its
// terminal (stty tostop). The terminal answers each try to write by a SIGTTOU; if the program
// catches that, it tries again for ever.
func sentByTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it has no terminal
	}
	defer unix.Close(fd)
	front, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
	if err != nil || front == unix.Getpgrp() {
		return false
	}
	modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil && modes.Lflag&unix.TOSTOP != 0
}
