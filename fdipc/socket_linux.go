package fdipc

import (
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/lazyconn"
)

// Socket is the net.Conn that [Handle.Conn] makes of a TCP or Unix connection. It does what a
// *net.TCPConn does, for less: net.FileConn would duplicate the descriptor, ask the kernel for its
// type and names, and register it with the poller at once.
//
// A Socket is lazy. It makes plain non-blocking calls first and joins the runtime's poller at the
// first call that would block. A short connection never does.
//
// Beside those of a net.Conn it has these methods of *net.TCPConn: CloseRead, CloseWrite, File,
// SetKeepAlive, SetLinger, SetNoDelay, SyscallConn; and Standard, which ends it and returns the
// connection as package net makes it.
//
// Errors are *net.OpError; they satisfy net.Error and match os.ErrDeadlineExceeded and
// net.ErrClosed. Addresses are *net.TCPAddr or *net.UnixAddr: those of the accept, where the sender
// has said them, else what the kernel says when the Socket is made. Close shuts the connection down
// if the process it came from still has its copy, unless SyscallConn or File was used. With
// SetLinger(0) at such a moment the client sees a FIN where it would have seen a reset.
//
// All methods may be called concurrently. Writes are not interleaved. A Socket that is dropped
// without Close keeps its descriptor.
type Socket struct {
	lazyConn
	accepted      string                   // see Accepted, as on the wire
	local, remote atomic.Pointer[net.Addr] // of it, once they were asked for
}

type lazyConn = lazyconn.Conn // unexported, so that Socket has its methods and no field

// LocalAddr returns the address that the client connected to, as it was when the connection was
// accepted.
func (s *Socket) LocalAddr() net.Addr {
	return s.addr(&s.local, func(a *Accepted) (netip.AddrPort, string) { return a.Local, a.LocalName })
}

// RemoteAddr returns the client's address, as it was when the connection was accepted: also when
// the client has reset it, and after Close.
func (s *Socket) RemoteAddr() net.Addr {
	return s.addr(&s.remote, func(a *Accepted) (netip.AddrPort, string) { return a.Remote, a.RemoteName })
}

// PeerCredentials returns the credentials of the client of a Unix connection, where the listener
// was told to ask for them.
func (s *Socket) PeerCredentials() (Credentials, bool) {
	a, _ := decodeAccepted(s.accepted)
	if a.Credentials == nil {
		return Credentials{}, false
	}
	return *a.Credentials, true
}

func (s *Socket) addr(cache *atomic.Pointer[net.Addr], end func(*Accepted) (netip.AddrPort, string)) net.Addr {
	if a := cache.Load(); a != nil {
		return *a
	}
	known, _ := decodeAccepted(s.accepted)
	ap, name := end(&known)
	a := toAddr(ap, name, lazyconn.Network(&s.lazyConn))
	cache.Store(&a)
	return a
}

// askAccepted asks the kernel, now, for what the sender of a connection has not said.
func askAccepted(fd int) string {
	var a Accepted
	if sa, err := unix.Getpeername(fd); err == nil {
		a.Remote, a.RemoteName = endOfSockaddr(sa)
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		a.Local, a.LocalName = endOfSockaddr(sa)
	}
	return a.encode()
}

func endOfSockaddr(sa unix.Sockaddr) (netip.AddrPort, string) {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), ""
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port)), ""
	case *unix.SockaddrUnix:
		return netip.AddrPort{}, sa.Name
	}
	return netip.AddrPort{}, ""
}

// networkOf returns the name that package net has for a connection of that kind.
func networkOf(k HandleKind) string {
	switch k {
	case HandleTCP:
		return "tcp"
	case HandleUnixPacket:
		return "unixpacket"
	default:
		return "unix"
	}
}

// socketFD returns the descriptor of a Socket that is to be sent on.
func socketFD(v any) (fd int, ok bool, err error) {
	s, ok := v.(*Socket)
	if !ok {
		return -1, false, nil
	}
	fd, err = lazyconn.Lend(&s.lazyConn)
	return fd, true, err
}

// netConn makes a net.Conn of what h owns.
func (h *Handle) netConn() (net.Conn, error) {
	kind := h.kindLocked()
	switch kind {
	case HandleTCP, HandleUnix, HandleUnixPacket:
		if h.v == nil {
			s := &Socket{accepted: h.accepted}
			if s.accepted == "" {
				s.accepted = askAccepted(int(h.fd))
			}
			place := h.place()
			if h.wasSent {
				place = claims.Place{}
			}
			lazyconn.Init(&s.lazyConn, int(h.fd), networkOf(kind), s, place)
			return s, nil
		}
	case HandleUDP, HandleUnixgram:
	default:
		return nil, ErrHandleKind
	}
	f, done, err := h.asFile()
	if err != nil {
		return nil, err
	}
	c, err := net.FileConn(f)
	return c, done(err)
}
