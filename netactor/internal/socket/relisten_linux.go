package socket

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
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

// Refuse makes the socket refuse clients, those in its backlog too, in all processes that have it.
// Its address stays bound. Relisten ends that, or a new socket in its place.
func (s *Bound) Refuse() error {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	if s.IsPacket() {
		return s.refuseDatagrams(sa)
	}
	if err := unix.Shutdown(s.fd, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN { // it does not listen
		return os.NewSyscallError("shutdown", err)
	}
	if _, local := sa.(*unix.SockaddrUnix); local {
		s.closeBacklog()
		return nil
	}
	// The kernel has freed the port if it had chosen it.
	if err := unix.Bind(s.fd, sa); err != nil && err != unix.EINVAL { // EINVAL means that it is still bound
		return os.NewSyscallError("bind", err)
	}
	return nil
}

// closeBacklog closes the connections that wait in a Unix socket: a shutdown leaves them there.
func (s *Bound) closeBacklog() {
	for {
		fd, _, err := unix.Accept4(s.fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		h := fdipc.HandleFD(fd)
		_ = h.Close() // does not wait
	}
}

// refuseDatagrams connects a packet socket to itself, so that the kernel refuses all other senders:
// by ICMP, or with EPERM on a Unix socket.
func (s *Bound) refuseDatagrams(sa unix.Sockaddr) error {
	switch to := sa.(type) {
	case *unix.SockaddrInet4:
		if to.Addr == [4]byte{} {
			to.Addr = [4]byte{127, 0, 0, 1}
		}
	case *unix.SockaddrInet6:
		if to.Addr == [16]byte{} {
			to.Addr = [16]byte{15: 1}
		}
	}
	if err := unix.Connect(s.fd, sa); err != nil {
		return os.NewSyscallError("connect", err)
	}
	// A sender may wait for room in a Unix socket. What is read may carry descriptors, whose close
	// may wait.
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	go func() { // ends when the queue, to which nothing is added, is empty
		var b [1]byte
		for {
			if _, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT); err != nil && err != unix.EINTR {
				break
			}
		}
		_ = unix.Close(fd)
	}()
	return nil
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
