package socket

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listening reports whether the socket listens still, and lets anybody in; of a packet socket, whether it can be read.
func (s *Bound) Listening() bool {
	if IsPacket(s.fd) {
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		return err != nil || n == 0 || fds[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) == 0
	}
	v, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || v == 0 {
		return false
	}
	// A Unix socket that was shut down listens still, and refuses all.
	fds := []unix.PollFd{{Fd: int32(s.fd)}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n == 0 || fds[0].Revents&unix.POLLHUP == 0
}

// disconnect makes a TCP socket one without a past, as connect(2) says of AF_UNSPEC.
func disconnect(fd int) error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa)); e != 0 {
		return e
	}
	return nil
}

// Relisten makes a TCP socket that was shut down listen again, for all who have it. A port that
// was the kernel's choice has been given back meanwhile: it is asked for by number, r's. With an
// error a new socket is needed, as always for a packet socket.
func (s *Bound) Relisten(r SocketSpec) error {
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil || s.IsPacket() {
		return unix.EOPNOTSUPP // a Unix socket, or one of datagrams, stays shut down
	}
	// A shutdown of a socket that does not listen, as of one that was shut down already, would be
	// inherited by all that it accepts later. This takes it back.
	if err := disconnect(s.fd); err != nil {
		return os.NewSyscallError("connect", err)
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
