package netactor

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// listening reports whether the socket listens still, and lets anybody in.
func (s *socket) listening() bool {
	v, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || v == 0 {
		return false
	}
	// A Unix socket that was shut down listens still, and refuses all.
	fds := []unix.PollFd{{Fd: int32(s.fd)}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n == 0 || fds[0].Revents&unix.POLLHUP == 0
}

// relisten makes a TCP socket that was shut down listen again, for all who have it. A port that
// was the kernel's choice has been given back meanwhile: it is asked for by number, r's. With an
// error a new socket is needed.
func (s *socket) relisten(r Request) error {
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return unix.EOPNOTSUPP // a Unix socket stays shut down
	}
	sa, _, err := sockaddr(ap)
	if err == nil {
		err = unix.Bind(s.fd, sa)
	}
	if err != nil && err != unix.EINVAL { // that is: it is bound still
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(s.fd, r.backlog()); err != nil {
		return os.NewSyscallError("listen", err)
	}
	return nil
}
