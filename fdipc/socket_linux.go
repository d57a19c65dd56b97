package fdipc

import (
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/lazyconn"
)

// Socket is the net.Conn that [Handle.Conn] makes of a TCP connection; that of a Unix connection is
// a [UnixSocket]. It has every method of *net.TCPConn, so that code which asserts an interface
// finds them; it is no *net.TCPConn, and code that asserts that type does not. It costs less:
// net.FileConn would duplicate the descriptor, ask the kernel for its type and names, and register
// it with the poller at once.
//
// A Socket is lazy. It makes plain non-blocking calls first and joins the runtime's poller at the
// first call that would block. A short connection never does.
//
// ReadFrom sends a regular file by sendfile(2), and what a *net.TCPConn or *net.UnixConn receives
// by splice(2). Between two Sockets, and in WriteTo, bytes are copied. Standard, which package net
// does not have, ends the Socket and returns the connection as a *net.TCPConn.
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

// ReadFrom writes what it reads from r, until its end.
func (s *Socket) ReadFrom(r io.Reader) (int64, error) { return lazyconn.CopyFrom(&s.lazyConn, r) }

// WriteTo writes what it reads from the connection to w, until the end.
func (s *Socket) WriteTo(w io.Writer) (int64, error) { return lazyconn.CopyTo(&s.lazyConn, w) }

// UnixSocket is the net.Conn that [Handle.Conn] makes of a Unix connection. It has every method of
// *net.UnixConn, and is otherwise as a [Socket].
type UnixSocket struct{ Socket }

// ReadFrom is Read. The address is nil, as the connection has one peer.
func (s *UnixSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := s.Read(b)
	return n, nil, err
}

// ReadFromUnix is ReadFrom.
func (s *UnixSocket) ReadFromUnix(b []byte) (int, *net.UnixAddr, error) {
	n, err := s.Read(b)
	return n, nil, err
}

// ReadMsgUnix reads a message and the control data that came with it. Descriptors in it are
// close-on-exec, and the caller's.
func (s *UnixSocket) ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	n, oobn, flags, err = lazyconn.RecvMsg(&s.lazyConn, b, oob)
	return n, oobn, flags, nil, err
}

// WriteTo returns net.ErrWriteToConnected, unless addr is nil: then it is Write.
func (s *UnixSocket) WriteTo(b []byte, addr net.Addr) (int, error) {
	if addr != nil {
		return 0, lazyconn.Error(&s.lazyConn, "write", net.ErrWriteToConnected)
	}
	return s.Write(b)
}

// WriteToUnix is WriteTo.
func (s *UnixSocket) WriteToUnix(b []byte, addr *net.UnixAddr) (int, error) {
	if addr != nil {
		return s.WriteTo(b, addr)
	}
	return s.Write(b)
}

// WriteMsgUnix writes a message with control data. addr must be nil.
func (s *UnixSocket) WriteMsgUnix(b, oob []byte, addr *net.UnixAddr) (n, oobn int, err error) {
	if addr != nil {
		return 0, 0, lazyconn.Error(&s.lazyConn, "write", net.ErrWriteToConnected)
	}
	if n, err = lazyconn.SendMsg(&s.lazyConn, b, oob); err == nil {
		oobn = len(oob)
	}
	return n, oobn, err
}

// asSocket returns the Socket that v is, or that a UnixSocket embeds.
func asSocket(v any) (*Socket, bool) {
	switch v := v.(type) {
	case *Socket:
		return v, true
	case *UnixSocket:
		return &v.Socket, true
	}
	return nil, false
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
	s, ok := asSocket(v)
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
			var s *Socket
			var c net.Conn
			if kind == HandleTCP {
				s = &Socket{accepted: h.accepted}
				c = s
			} else {
				u := &UnixSocket{Socket{accepted: h.accepted}}
				s, c = &u.Socket, u
			}
			if s.accepted == "" {
				s.accepted = askAccepted(int(h.fd))
			}
			place := h.place()
			if h.wasSent {
				place = claims.Place{}
			}
			lazyconn.Init(&s.lazyConn, int(h.fd), networkOf(kind), s, place)
			return c, nil
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
