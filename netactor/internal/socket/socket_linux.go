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

// Bound is a listening socket that the master holds, or a packet socket. It is a bare descriptor
// on purpose: in the runtime's poller it would wake the master for every
// connection that others accept.
type Bound struct {
	fd   int
	path string      // the Unix path, as it was asked for
	file *socketFile // where its file stands, which is removed at the end; nil without one
}

// Open opens the socket of r, which is resolved and valid. The
// result is owned by the caller. Errors wrap os.SyscallError, as net.Listen's.
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
		return openUDP(r)
	default:
		return openTCP(r)
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

// takeSocket takes ownership of fd, which must be a listening stream socket, or one of
// unixpacket; else it is closed.
func takeSocket(fd int) (*Bound, error) {
	s := &Bound{fd: fd}
	v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	network, _, aerr := s.Address()
	if err != nil || v == 0 || aerr != nil || network != "tcp" && network != "unix" && network != "unixpacket" {
		s.Close()
		return nil, fmt.Errorf("it is no listening socket of TCP or Unix: %w", os.NewSyscallError("listen", unix.EINVAL))
	}
	// O_NONBLOCK belongs to the open file description: whoever else has this
	// socket sees it too. We cannot accept on a blocking one.
	if err := unix.SetNonblock(fd, true); err != nil {
		s.Close()
		return nil, os.NewSyscallError("setnonblock", err)
	}
	return s, nil
}

// Applied returns s with the options of r; or closes it.
func (s *Bound) Applied(r SocketSpec) (*Bound, error) {
	if err := s.apply(r); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// openTCP opens a TCP socket with the options that net.Listen sets.
func openTCP(r SocketSpec) (*Bound, error) {
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return nil, os.NewSyscallError("bind: "+err.Error(), unix.EINVAL)
	}
	s, err := bindTCP(r, ap)
	if r.Network == "tcp" && withoutIPv6(err) {
		// No IPv6 on this machine: dual stack is IPv4 then.
		return bindTCP(r, netip.AddrPortFrom(netip.IPv4Unspecified(), ap.Port()))
	}
	return s, err
}

// withoutIPv6 reports whether err says that there is no IPv6 here: not its address, or not its socket, for
// which a seccomp profile has whatever errno it likes.
func withoutIPv6(err error) bool {
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return true
	}
	sys, ok := errors.AsType[*os.SyscallError](err)
	return ok && sys.Syscall == "socket" && !faults.IsShortage(err)
}

// inetSocket makes a socket that is to be bound to sa, which is ap. One of IPv6 is dual stack, unless the network is
// tcp6 or udp6.
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

// bind gives s its address. Whoever else has the port, with SO_REUSEPORT or not, is EADDRINUSE: so the
// first socket is bound without it, and those that join it with.
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

// listenIfStream makes s listen, if it takes connections.
func (s *Bound) listenIfStream(r SocketSpec) (*Bound, error) {
	if address.IsPacket(r.Network) {
		return s, nil
	}
	return s.listen(r)
}

// listen makes s listen, or closes it.
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

// Address returns where the socket is bound, as getsockname has it.
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

// V6only reports whether the socket takes IPv6 alone.
func (s *Bound) V6only() bool {
	v, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && v != 0
}

// IsPacket reports whether it is a packet socket; a closed one is not.
func (s *Bound) IsPacket() bool { return IsPacket(s.fd) }

// Closed reports whether the socket is closed.
func (s *Bound) Closed() bool { return s.fd < 0 }

// Handle returns a duplicate to send, owned by the caller.
func (s *Bound) Handle() (*fdipc.Handle, error) {
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	h := fdipc.HandleFD(fd)
	h.Kind() // by which its close frees the address at once
	return h, nil
}

// Close closes the master's copy. The file of a Unix socket is removed first, if it is still the one that was
// created, or adopted. The close of a Unix socket may wait, for what its clients have queued in it is closed with
// it, descriptors too; and so may the file system.
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

// CloseInBackground is close without a wait: a port is free when it returns, and the rest is done aside.
func (s *Bound) CloseInBackground() {
	if domain, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_UNIX {
		s.Close()
		return
	}
	old := &Bound{file: s.file}
	fd := fdipc.HandleFD(s.fd)
	s.fd, s.file = -1, nil
	if old.file == nil {
		_ = fd.Close() // which does not wait
		return
	}
	Files.doRemoval(s.path, func() {
		old.removeFile()
		_ = fd.Close()
	})
}

// Receive claims a listening socket that a worker sent. The handle is
// consumed.
func Receive(h *fdipc.Handle) (*Bound, error) {
	switch h.Kind() { // looked at before anything is asked of it that a file system could keep waiting
	case fdipc.HandleTCPListener, fdipc.HandleUnixListener, fdipc.HandleUnixPacketListener, fdipc.HandleUDP, fdipc.HandleUnixgram:
	default:
		_ = h.Close()
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	f, err := h.File()
	if err != nil {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	defer func() { go f.Close() }() // ends when what is queued in it is closed, should it be the last copy
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

// Descriptor returns the descriptor, which stays the socket's; -1 once it is closed.
func (s *Bound) Descriptor() int { return s.fd }
