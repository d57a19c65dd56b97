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

// Socket is the net.Conn that [Handle.Conn] makes of a TCP connection; that of a Unix connection is
// a [UnixSocket]. It has every method of *net.TCPConn, with the same effect, so that code which
// asserts an interface finds them. Code that asserts *net.TCPConn gets one by TCPConn.
//
// A Socket is lazy: net.FileConn would duplicate the descriptor, ask the kernel for its type and
// names, set five options and register it with the poller at once. A Socket makes plain non-blocking
// calls first, and joins the poller at the first call that would block; a short connection never
// does. It becomes a *net.TCPConn underneath at once when it is asked for more than reads, writes,
// deadlines and closes: by an option, by SyscallConn, File or TCPConn, by ReadFrom or WriteTo where
// the kernel may move the bytes (sendfile, splice). So does a connection that is kept, when that has
// become cheaper: after some dozens of requests. Deadlines, options and calls that wait stay as they
// are.
//
// The *net.TCPConn that TCPConn returns stays the Socket's: Close the Socket. Reads and writes of
// both may be mixed.
//
// Errors are *net.OpError; they satisfy net.Error and match os.ErrDeadlineExceeded and
// net.ErrClosed. Addresses are *net.TCPAddr or *net.UnixAddr: those of the accept, where the sender
// has said them, else what the kernel says when the Socket is made. Close shuts the connection down
// if the process it came from still has its copy, unless SyscallConn, File or TCPConn was used. With
// SetLinger(0) at such a moment the client sees a FIN where it would have seen a reset.
//
// All methods may be called concurrently. Writes are not interleaved. A Socket that is dropped
// without Close may keep its descriptor.
type Socket struct {
	lazyConn
	accepted      string                   // see Accepted, as on the wire
	local, remote atomic.Pointer[net.Addr] // of it, once they were asked for
}

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
	u, err := lazyconn.UnixConn(&s.lazyConn, "read")
	if err != nil {
		return 0, 0, 0, nil, err
	}
	return u.ReadMsgUnix(b, oob)
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
	u, err := lazyconn.UnixConn(&s.lazyConn, "write")
	if err != nil {
		return 0, 0, err
	}
	return u.WriteMsgUnix(b, oob, nil)
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
