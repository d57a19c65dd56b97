package socket

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/faults"
)

// Bound is a listening socket that the master holds, or a packet socket. It is a bare descriptor on
// purpose: in the Go runtime's poller it would wake the master for every connection that other
// processes accept.
type Bound struct {
	fd   int
	path string      // the Unix path, as in the request
	file *socketFile // its file, which is removed at the end; nil if there is none

	// Kept is the name under which the service manager keeps a duplicate; empty if it keeps none.
	Kept string
}

// Open opens the socket of r, which is resolved and valid. The caller owns the result. Errors wrap
// os.SyscallError, as net.Listen's do.
func Open(r SocketSpec) (*Bound, error) {
	switch {
	case r.FD != 0:
		s, err := dupSocket(r.FD, r.Packet)
		if err != nil {
			return nil, err
		}
		return s.Applied(r)
	case address.IsLocal(r.Network):
		return openUnix(r)
	case address.IsPacket(r.Network):
		return openInternet(r, bindUDP)
	default:
		return openInternet(r, bindTCP)
	}
}

// dupSocket takes a duplicate of the process's descriptor fd, which must be a
// listening socket, or a bound packet socket.
func dupSocket(fd int, packet bool) (*Bound, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBADF):
		return nil, fmt.Errorf("descriptor %d is not open: %w", fd, os.NewSyscallError("listen", unix.EINVAL)) // as Node: any bad number is EINVAL (N100)
	case err != nil:
		return nil, os.NewSyscallError("dup", err)
	}
	if packet {
		return takePacketSocket(&Bound{fd: n})
	}
	return takeSocket(n)
}

// takeSocket takes ownership of fd, which must be a listening socket of TCP, unix or unixpacket. It
// closes any other.
func takeSocket(fd int) (*Bound, error) {
	s := &Bound{fd: fd}
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	network, _, aerr := s.Address()
	if err != nil || v == 0 || aerr != nil || network != "tcp" && network != "unix" && network != "unixpacket" {
		s.Close()
		return nil, fmt.Errorf("it is no listening socket of TCP or Unix: %w", os.NewSyscallError("listen", unix.EINVAL))
	}
	// O_NONBLOCK belongs to the open file description: other programs that have this socket see it
	// too. We cannot accept on a blocking socket.
	if err := unix.SetNonblock(fd, true); err != nil {
		s.Close()
		return nil, os.NewSyscallError("setnonblock", err)
	}
	return s, nil
}

// Applied sets the options of r on s and returns s. On an error it closes s.
func (s *Bound) Applied(r SocketSpec) (*Bound, error) {
	if err := s.apply(r); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openInternet opens a socket by bind, which sets the options that package net sets.
func openInternet(r SocketSpec, bind func(SocketSpec, netip.AddrPort) (*Bound, error)) (*Bound, error) {
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return nil, os.NewSyscallError("bind: "+err.Error(), unix.EINVAL)
	}
	s, err := bind(r, ap)
	if (r.Network == "tcp" || r.Network == "udp") && withoutIPv6(err) {
		// Without IPv6 on this machine, dual stack means IPv4.
		return bind(r, netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port()))
	}
	return s, err
}

// withoutIPv6 reports whether err means that there is no IPv6 here: no such address, or no such
// socket, for which a seccomp profile may use any errno.
func withoutIPv6(err error) bool {
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return true
	}
	sys, ok := errors.AsType[*os.SyscallError](err)
	return ok && sys.Syscall == "socket" && !faults.IsShortage(err)
}

// inetSocket makes a socket, and sa, the form of ap to bind it to. An IPv6 socket is dual stack,
// unless the network is tcp6 or udp6.
func inetSocket(r SocketSpec, ap netip.AddrPort, kind, protocol int) (s *Bound, sa unix.Sockaddr, err error) {
	sa, family, err := sockaddr(ap)
	if err != nil {
		return nil, nil, os.NewSyscallError("bind: "+err.Error(), unix.EINVAL)
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, nil, os.NewSyscallError("socket", err)
	}
	if family == unix.AF_INET6 {
		only := 0
		if strings.HasSuffix(r.Network, "6") {
			only = 1
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only) // some systems have no choice; net ignores it too
	}
	return &Bound{fd: fd}, sa, nil
}

func bindTCP(r SocketSpec, ap netip.AddrPort) (*Bound, error) {
	s, sa, err := inetSocket(r, ap, unix.SOCK_STREAM, unix.IPPROTO_TCP)
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		s.Close()
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if s, err = s.Applied(r); err != nil {
		return nil, err
	}
	if err := s.bind(r, sa); err != nil {
		s.Close()
		return nil, err
	}
	return s.listen(r)
}

// bind gives s its address. If another socket has the port, with SO_REUSEPORT or not, it must fail
// with EADDRINUSE. So the first socket of a group is bound without SO_REUSEPORT, and sockets that
// join the group are bound with it.
func (s *Bound) bind(r SocketSpec, sa unix.Sockaddr) error {
	if r.Joins {
		if err := s.reusePort(); err != nil {
			return err
		}
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	if r.Policy == netactor.ReusePort {
		return s.reusePort()
	}
	return nil
}

func (s *Bound) reusePort() error {
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

func sockaddr(ap netip.AddrPort) (sa unix.Sockaddr, family int, err error) {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}, unix.AF_INET, nil
	}
	zone, err := zoneID(ap.Addr().Zone())
	if err != nil {
		return nil, 0, fmt.Errorf("zone %q: %w", ap.Addr().Zone(), err)
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16(), ZoneId: zone}, unix.AF_INET6, nil
}

func zoneID(zone string) (uint32, error) {
	if zone == "" {
		return 0, nil
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, err
	}
	return uint32(ifi.Index), nil
}

func (r SocketSpec) backlog() int {
	if r.Backlog == 0 {
		return maxBacklog()
	}
	return r.Backlog
}

// listenIfStream makes s listen, unless it is a packet socket. On an error it closes s.
func (s *Bound) listenIfStream(r SocketSpec) (*Bound, error) {
	if address.IsPacket(r.Network) {
		return s, nil
	}
	return s.listen(r)
}

// listen makes s listen. On an error it closes s.
func (s *Bound) listen(r SocketSpec) (*Bound, error) {
	if err := unix.Listen(s.fd, r.backlog()); err != nil {
		s.Close()
		return nil, os.NewSyscallError("listen", err)
	}
	return s, nil
}

// maxBacklog is the longest accept queue that the kernel allows.
var maxBacklog = sync.OnceValue(func() int {
	if b, err := os.ReadFile("/proc/sys/net/core/somaxconn"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n > 0 {
			return n
		}
	}
	return unix.SOMAXCONN
})

// Address returns the network and address that the socket is bound to, from getsockname.
func (s *Bound) Address() (network, address string, err error) {
	typ, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "", "", os.NewSyscallError("getsockopt", err)
	}
	internet := map[int]string{unix.SOCK_STREAM: "tcp", unix.SOCK_DGRAM: "udp"}[typ]
	local := map[int]string{unix.SOCK_STREAM: "unix", unix.SOCK_SEQPACKET: "unixpacket", unix.SOCK_DGRAM: "unixgram"}[typ]
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return "", "", os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return internet, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String(), nil
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		if sa.ZoneId != 0 {
			a = a.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return internet, netip.AddrPortFrom(a, uint16(sa.Port)).String(), nil
	case *unix.SockaddrUnix:
		if s.path != "" {
			return local, s.path, nil
		}
		return local, sa.Name, nil
	}
	return "", "", os.NewSyscallError("getsockname", unix.EAFNOSUPPORT)
}

// V6only reports whether the socket takes IPv6 only.
func (s *Bound) V6only() bool {
	v, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && v != 0
}

// IsPacket reports whether it is a packet socket; false for a closed socket.
func (s *Bound) IsPacket() bool { return IsPacket(s.fd) }

// Closed reports whether the socket is closed.
func (s *Bound) Closed() bool { return s.fd < 0 }

// Handle returns a duplicate to send. The caller owns it.
func (s *Bound) Handle() (*fdipc.Handle, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	h := fdipc.HandleFD(fd)
	h.Kind() // then the handle's close frees the address at once
	return h, nil
}

// Close closes the master's copy. It removes the file of a Unix socket first, if that is still the
// file that was created or adopted. The close of a Unix socket may wait, because it closes what
// clients have queued in the socket, descriptors too. The file system may wait too.
func (s *Bound) Close() {
	s.removeFile()
	_ = unix.Close(s.fd)
	s.fd = -1
}

func (s *Bound) removeFile() {
	if s.file != nil {
		s.file.remove()
		s.file.close()
		s.file = nil
	}
}

// CloseInBackground is Close without a wait: a port is free when it returns; another goroutine
// removes a file.
func (s *Bound) CloseInBackground() {
	if domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		s.Close()
		return
	}
	old := &Bound{file: s.file}
	fd := fdipc.HandleFD(s.fd)
	s.fd, s.file = -1, nil
	if old.file == nil {
		_ = fd.Close() // it does not wait
		return
	}
	Files.doRemoval(s.path, func() {
		old.removeFile()
		_ = fd.Close()
	})
}

// Receive claims a listening socket that a worker sent. It consumes the handle.
func Receive(h *fdipc.Handle) (*Bound, error) {
	switch h.Kind() { // checked before any call on it that a file system could block
	case fdipc.HandleTCPListener, fdipc.HandleUnixListener, fdipc.HandleUnixPacketListener, fdipc.HandleUDP, fdipc.HandleUnixgram:
	default:
		_ = h.Close()
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	f, err := h.File()
	if err != nil {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	defer func() { go f.Close() }() // returns when the queued connections are closed, if this is the last copy
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	var s *Bound
	if cerr := rc.Control(func(fd uintptr) { s, err = dupSocket(int(fd), false) }); cerr != nil {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Descriptor returns the descriptor, which the socket still owns; -1 once it is closed.
func (s *Bound) Descriptor() int { return s.fd }
