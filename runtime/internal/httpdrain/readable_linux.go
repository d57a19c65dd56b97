package httpdrain

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// readable reports whether there are bytes to read from c, or from the connection that it wraps.
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
