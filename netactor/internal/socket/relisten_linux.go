package socket

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Listening reports whether the socket still listens and accepts clients; for a packet socket,
// whether it can be read.
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
	// A Unix socket that was shut down still listens, and refuses all clients.
	fds := []unix.PollFd{{Fd: int32(s.fd)}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n == 0 || fds[0].Revents&unix.POLLHUP == 0
}

// disconnect resets the state of a TCP socket, as connect(2) describes for AF_UNSPEC.
func disconnect(fd int) error {
	sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, e := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa)); e != 0 {
		return e
	}
	return nil
}

// Relisten makes a TCP socket that was shut down listen again, for all processes that have it. If
// the kernel had chosen the port, it has freed it since; Relisten binds the port of r again. On an
// error a new socket is needed, as always for a packet socket.
func (s *Bound) Relisten(r SocketSpec) error {
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil || s.IsPacket() {
		return unix.EOPNOTSUPP // a Unix socket, or a packet socket, stays shut down
	}
	// All connections that the socket accepts later would inherit a shutdown that came while it did
	// not listen, such as a second shutdown. disconnect undoes it.
	if err := disconnect(s.fd); err != nil {
		return os.NewSyscallError("connect", err)
	}
	sa, _, err := sockaddr(ap)
	if err == nil {
		err = unix.Bind(s.fd, sa)
	}
	if err != nil && err != unix.EINVAL { // EINVAL means that it is still bound
		return os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(s.fd, r.backlog()); err != nil {
		return os.NewSyscallError("listen", err)
	}
	return nil
}
