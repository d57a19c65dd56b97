package dispatch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
)

// acceptSocket is a listening socket in the listener process. It waits in the Go runtime's poller
// and accepts by bare system calls; it wraps no connection.
type acceptSocket struct {
	f        *os.File
	rc       syscall.RawConn
	draining atomic.Bool // interrupt was called: accept does not wait any more

	// Used by the goroutine that calls accept.
	room           func() int
	into           []acceptedConn
	n              int
	err            error
	name           fdipc.Accepted // Local and LocalName are those of the socket
	askLocal       bool           // getsockname for each connection: its local address may not be the socket's
	unix           bool           // clients may have names
	askCredentials bool           // get the credentials of each client
	ceiling        int            // a descriptor number from ceiling up means that descriptors run short
	sa             unix.RawSockaddrAny
	ready          func(fd uintptr) bool

	accept4 func(fd int, sa *unix.RawSockaddrAny) (int, error) // the system call; tests replace it
}

// newAcceptSocket claims a listening socket. It consumes the handle, also on an error.
func newAcceptSocket(h *fdipc.Handle) (*acceptSocket, error) {
	f, err := h.File()
	if err != nil {
		return nil, err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	// The socket must be pollable and listen: otherwise accept would wait for ever, or spin.
	var listening int
	if cerr := rc.Control(func(fd uintptr) {
		listening, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	}); cerr != nil || err != nil || listening == 0 {
		_ = f.Close()
		return nil, os.NewSyscallError("listen", unix.EINVAL)
	}
	if err := f.SetReadDeadline(time.Time{}); err != nil {
		_ = f.Close()
		return nil, err
	}
	s := &acceptSocket{f: f, rc: rc, ceiling: ceiling(), accept4: rawAccept4}
	s.ready = s.readable
	_ = rc.Control(func(fd uintptr) { s.readName(int(fd)) })
	return s, nil
}

// accept waits until there is a connection, then accepts as many as there are, up to room and the
// length of into. It calls room only when there may be a connection. Errors: errNoRoom; errDrained
// after interrupt when the backlog is empty; else the error of accept4. n may be above 0 with an
// error.
func (s *acceptSocket) accept(room func() int, into []acceptedConn) (n int, err error) {
	s.room, s.into = room, into
	for {
		s.n, s.err = 0, nil
		if s.draining.Load() {
			if err := s.rc.Control(func(fd uintptr) { s.readable(fd) }); err != nil {
				return 0, err
			}
			if s.n == 0 && s.err == nil {
				s.err = errDrained
			}
			return s.n, s.err
		}
		err := s.rc.Read(s.ready)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // interrupted
		}
		if err != nil {
			return 0, err
		}
		return s.n, s.err
	}
}

// readable accepts when the socket may have a connection. It returns false if the socket has none.
func (s *acceptSocket) readable(fd uintptr) bool {
	limit := min(s.room(), len(s.into))
	if limit == 0 {
		s.err = errNoRoom
		return true
	}
	for s.n < limit {
		if s.unix {
			s.sa = unix.RawSockaddrAny{} // the kernel writes only as many bytes as the name has
		}
		nfd, err := s.accept4(int(fd), &s.sa)
		switch err {
		case nil:
			s.into[s.n] = s.acceptedConn(nfd)
			s.n++
			if nfd >= s.ceiling {
				s.err = unix.EMFILE // nearly: the remaining descriptors are for control traffic
				return true
			}
		case unix.EINTR:
		case unix.EAGAIN:
			return s.n > 0
		default:
			s.err = err
			return true
		}
	}
	return true
}

// readName reads once from the listening socket what then need not be read for each connection.
func (s *acceptSocket) readName(fd int) {
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrUnix:
		s.unix, s.name.LocalName = true, sa.Name
	default:
		s.name.Local = localOf(fd)
		transparent, _ := unix.GetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT)
		s.askLocal = !s.name.Local.IsValid() || s.name.Local.Addr().IsUnspecified() || transparent != 0
	}
}

// acceptedConn records what the kernel knows of a connection now: later it may have forgotten.
func (s *acceptSocket) acceptedConn(fd int) acceptedConn {
	a := acceptedConn{h: fdipc.HandleFD(fd), fd: fd}
	known := s.name
	if s.unix {
		known.RemoteName = nameOf(&s.sa)
		if s.askCredentials {
			if c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				known.Credentials = &fdipc.Credentials{PID: int(c.Pid), UID: int(c.Uid), GID: int(c.Gid)}
			}
		}
	} else {
		a.h.Known(fdipc.HandleTCP)
		known.Remote = peerOf(&s.sa)
		if s.askLocal {
			known.Local = localOf(fd)
		}
	}
	a.peer, a.local = known.Remote, known.Local
	a.h.SetAccepted(known)
	return a
}

// nameOf returns the name of a Unix client as package net does; most clients have none.
func nameOf(sa *unix.RawSockaddrAny) string {
	raw := (*unix.RawSockaddrUnix)(unsafe.Pointer(sa)).Path
	var path [len(raw)]byte
	for i, c := range raw {
		path[i] = byte(c)
	}
	if path[0] == 0 && path[1] != 0 {
		path[0] = '@' // an abstract name
	}
	name, _, _ := bytes.Cut(path[:], []byte{0})
	return string(name)
}

// listening reports whether the socket listens, whatever error accept returned.
func (s *acceptSocket) listening() bool {
	v := 0
	fds := []unix.PollFd{{}}
	err := s.rc.Control(func(fd uintptr) {
		v, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		fds[0].Fd = int32(fd)
		_, _ = unix.Poll(fds, 0)
	})
	// A Unix socket that was shut down still listens, and refuses all clients.
	return err == nil && v != 0 && fds[0].Revents&unix.POLLHUP == 0
}

// backlog returns how many connections the kernel has for the socket that are not accepted; 0 if it
// does not say, as for a Unix socket.
func (s *acceptSocket) backlog() (n int) {
	_ = s.rc.Control(func(fd uintptr) {
		if i, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int(i.Unacked) // of a listening socket: sk_ack_backlog
		}
	})
	return n
}

// reserved is the number of descriptors that accept leaves to control traffic: new sockets, links
// to new workers. The kernel assigns the lowest free number, so a number shows how many are in use.
const reserved = 32

func ceiling() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil || l.Cur > 1<<30 {
		return 1 << 30
	}
	return max(int(l.Cur)-reserved, int(l.Cur)/2)
}

// interrupt makes the accept that waits, and all later ones, return without waiting.
func (s *acceptSocket) interrupt() {
	s.draining.Store(true)
	_ = s.f.SetReadDeadline(time.Unix(1, 0))
}

// close closes the socket. It must not be called while accept runs.
func (s *acceptSocket) close() { _ = s.f.Close() }

// rawAccept4 is accept4(2) on a non-blocking socket. It does not tell the Go scheduler of the call:
// in a process that was idle that would start the scheduler's watchdog, which costs more than the
// call.
func rawAccept4(fd int, sa *unix.RawSockaddrAny) (int, error) {
	n := uint32(unix.SizeofSockaddrAny)
	r, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(sa)), uintptr(unsafe.Pointer(&n)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// setForeign marks a socket that processes outside this tree may have too.
func (s *acceptSocket) setForeign() {
	s.accept4 = blockingAccept4
	s.askLocal = !s.unix // another process may make the socket transparent later
}

// blockingAccept4 is rawAccept4 for a socket that other processes have too, and may make blocking.
func blockingAccept4(fd int, sa *unix.RawSockaddrAny) (int, error) {
	n := uint32(unix.SizeofSockaddrAny)
	r, _, e := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(sa)), uintptr(unsafe.Pointer(&n)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if e != 0 {
		return -1, e
	}
	return int(r), nil
}

// askAccepted asks the kernel what is known of a connection that a worker has given back, whose own
// word does not count, and notes it at h.
func askAccepted(h *fdipc.Handle, fd int, network string) (peer, local netip.AddrPort) {
	var known fdipc.Accepted
	if network == "tcp" {
		var sa unix.RawSockaddrAny
		n := uint32(unix.SizeofSockaddrAny)
		if _, _, e := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n))); e == 0 {
			known.Remote = peerOf(&sa)
		}
		known.Local = localOf(fd)
	} else {
		said := h.Accepted()
		known.RemoteName, known.LocalName = said.RemoteName, said.LocalName
		if c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil && said.Credentials != nil {
			known.Credentials = &fdipc.Credentials{PID: int(c.Pid), UID: int(c.Uid), GID: int(c.Gid)}
		}
	}
	h.SetAccepted(known)
	return known.Remote, known.Local
}

// localOf returns the address that a client connected to; the zero value if it is not TCP.
func localOf(fd int) netip.AddrPort {
	var sa unix.RawSockaddrAny
	n := uint32(unix.SizeofSockaddrAny)
	_, _, e := unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n)))
	if e != 0 {
		return netip.AddrPort{}
	}
	return peerOf(&sa)
}

// peerOf returns a client's address; the zero value if it is not TCP.
func peerOf(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		in := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(in.Addr), ntohs(in.Port))
	case unix.AF_INET6:
		in := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		ip := netip.AddrFrom16(in.Addr).Unmap()
		if in.Scope_id != 0 {
			ip = ip.WithZone(strconv.Itoa(int(in.Scope_id)))
		}
		return netip.AddrPortFrom(ip, ntohs(in.Port))
	}
	return netip.AddrPort{}
}

func ntohs(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}

// ofConnection reports whether accept failed for one connection, which is gone: the network errors
// that accept(2) names, and the errors of a client that has left.
func ofConnection(err error) bool {
	switch err {
	case unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.ENETDOWN, unix.ENETUNREACH, unix.EHOSTDOWN,
		unix.EHOSTUNREACH, unix.ENONET, unix.ETIMEDOUT, unix.EINTR, unix.EAGAIN:
		return true
	}
	return false
}

// broken reports whether accept will fail for ever: the socket was shut down, or is not a listening
// socket.
func broken(err error) bool {
	switch err {
	case unix.EINVAL, unix.EBADF, unix.ENOTSOCK, unix.EOPNOTSUPP, unix.EFAULT:
		return true
	}
	return errors.Is(err, os.ErrClosed)
}

// clientReset reports whether the client of an accepted connection, whose handle is ours, has reset
// it. A client that only closed its sending half may still wait for an answer.
func clientReset(p *balance.PendingConn) bool {
	if p.FD < 0 {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(p.FD)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}

func shutDown(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RDWR) }

// setHooks is for tests.
func (s *acceptSocket) setHooks(h inspect.DispatcherHooks) {
	if h.Reserve {
		s.ceiling = 0
	}
	if h.Accept == nil {
		return
	}
	next := s.accept4
	s.accept4 = func(fd int, sa *unix.RawSockaddrAny) (int, error) {
		return h.Accept(func() (int, error) { return next(fd, sa) })
	}
}
