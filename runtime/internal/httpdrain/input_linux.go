package httpdrain

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// input reports whether there are bytes to read from c, or from the connection that it wraps, and
// how many have come in all; 0 if it is not TCP.
func input(c net.Conn) (waiting bool, received uint64) {
	for ; c != nil; c = below(c) {
		if sc, ok := c.(syscall.Conn); ok {
			if rc, err := sc.SyscallConn(); err == nil {
				_ = rc.Control(func(fd uintptr) {
					n, _ := unix.IoctlGetInt(int(fd), unix.SIOCINQ)
					waiting = n > 0
					if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
						received = info.Bytes_received
					}
				})
			}
			return waiting, received
		}
	}
	return false, 0
}
