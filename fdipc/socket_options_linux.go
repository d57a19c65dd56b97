package fdipc

import (
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

func (s *Socket) network() string {
	if s.kind == HandleTCP {
		return "tcp"
	}
	if s.kind == HandleUnixPacket {
		return "unixpacket"
	}
	return "unix"
}

// LocalAddr returns the address that the client connected to, as it was when the connection was accepted.
func (s *Socket) LocalAddr() net.Addr {
	return s.addr(&s.local, func(a *Accepted) (netip.AddrPort, string) { return a.Local, a.LocalName })
}

// RemoteAddr returns the client's address, as it was when the connection was accepted: also when the
// client has reset it, and after Close.
func (s *Socket) RemoteAddr() net.Addr {
	return s.addr(&s.remote, func(a *Accepted) (netip.AddrPort, string) { return a.Remote, a.RemoteName })
}

// PeerCredentials returns the credentials of the client of a Unix connection, where the listener was told to
// ask for them.
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
	a := toAddr(ap, name, s.network())
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

// CloseRead shuts down the reading half.
func (s *Socket) CloseRead() error { return s.shutdown(unix.SHUT_RD) }

// CloseWrite shuts down the writing half: the peer sees the end at once, whoever else has the descriptor.
func (s *Socket) CloseWrite() error { return s.shutdown(unix.SHUT_WR) }

func (s *Socket) shutdown(how int) error {
	return s.control("shutdown", func() error { return unix.Shutdown(s.fd, how) })
}

// SetNoDelay is that of *net.TCPConn, as are SetKeepAlive and SetLinger. An accepted connection
// inherits the first two from its listener, where they cost nothing.
func (s *Socket) SetNoDelay(on bool) error {
	return s.setInt(unix.IPPROTO_TCP, unix.TCP_NODELAY, on)
}

// SetKeepAlive turns keep-alive probes on or off.
func (s *Socket) SetKeepAlive(on bool) error {
	return s.setInt(unix.SOL_SOCKET, unix.SO_KEEPALIVE, on)
}

// SetLinger says how Close treats data not yet sent: sec < 0 in the background, 0 dropped, else waits.
func (s *Socket) SetLinger(sec int) error {
	return s.control("setsockopt", func() error {
		l := &unix.Linger{}
		if sec >= 0 {
			l.Onoff, l.Linger = 1, int32(sec)
		}
		return unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, l)
	})
}

func (s *Socket) setInt(level, opt int, on bool) error {
	v := 0
	if on {
		v = 1
	}
	return s.control("setsockopt", func() error { return unix.SetsockoptInt(s.fd, level, opt, v) })
}

func (s *Socket) control(name string, f func() error) error {
	if !s.enter() {
		return s.opError("set", net.ErrClosed)
	}
	defer s.leave()
	if err := f(); err != nil {
		return s.opError("set", os.NewSyscallError(name, err))
	}
	return nil
}

func passed(by *atomic.Int64) bool {
	t := by.Load()
	return t != 0 && now() >= t
}

// SetDeadline sets both deadlines.
func (s *Socket) SetDeadline(t time.Time) error { return s.setDeadline(t, true, true) }

// SetReadDeadline sets the deadline of reads, those that wait included. The zero value means none.
func (s *Socket) SetReadDeadline(t time.Time) error { return s.setDeadline(t, true, false) }

// SetWriteDeadline sets the deadline of writes, those that wait included. The zero value means none.
func (s *Socket) SetWriteDeadline(t time.Time) error { return s.setDeadline(t, false, true) }

func (s *Socket) setDeadline(t time.Time, read, write bool) error {
	if !s.enter() {
		return s.opError("set", net.ErrClosed)
	}
	defer s.leave()
	if err := s.deadlines(t, read, write); err != nil {
		return s.opError("set", err)
	}
	return nil
}

func (s *Socket) deadlines(t time.Time, read, write bool) error {
	f := s.file.Load()
	if f == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		f = s.file.Load() // it may have been made meanwhile, with the deadlines of before
	}
	if f == nil {
		var by int64
		if !t.IsZero() {
			by = max(1, now()+int64(min(time.Until(t), math.MaxInt64/2)))
		}
		if read {
			s.readAt = t
			s.readBy.Store(by)
		}
		if write {
			s.writeAt = t
			s.writeBy.Store(by)
		}
		return nil
	}
	switch {
	case !write:
		return f.SetReadDeadline(t)
	case !read:
		return f.SetWriteDeadline(t)
	}
	return f.SetDeadline(t)
}
