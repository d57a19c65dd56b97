package coppice

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// readable reports whether bytes of the client's wait to be read from a connection, or from
// the one below.
func readable(c net.Conn) bool {
	for ; c != nil; c = below(c) {
		if sc, ok := c.(syscall.Conn); ok {
			n := 0
			if rc, err := sc.SyscallConn(); err == nil {
				_ = rc.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCINQ) })
			}
			return n > 0
		}
	}
	return false
}
