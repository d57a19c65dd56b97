package fdipc

import (
	"math"
	"net"
	"os"
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

// LocalAddr asks the kernel once. After Close it knows only what was asked before.
func (s *Socket) LocalAddr() net.Addr { return s.addr(&s.local, unix.Getsockname) }

// RemoteAddr is as LocalAddr.
func (s *Socket) RemoteAddr() net.Addr { return s.addr(&s.remote, unix.Getpeername) }

func (s *Socket) addr(cache *atomic.Pointer[net.Addr], ask func(int) (unix.Sockaddr, error)) net.Addr {
	if a := cache.Load(); a != nil {
		return *a
	}
	if !s.enter() {
		return s.toAddr(nil)
	}
	defer s.leave()
	sa, err := ask(s.fd)
	if err != nil {
		return s.toAddr(nil)
	}
	a := s.toAddr(sa)
	cache.Store(&a)
	return a
}

func (s *Socket) toAddr(sa unix.Sockaddr) net.Addr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: append(net.IP(nil), sa.Addr[:]...), Port: sa.Port}
	case *unix.SockaddrInet6:
		a := &net.TCPAddr{IP: append(net.IP(nil), sa.Addr[:]...), Port: sa.Port}
		if sa.ZoneId != 0 {
			a.Zone = zone(int(sa.ZoneId))
		}
		return a
	case *unix.SockaddrUnix:
		return &net.UnixAddr{Name: sa.Name, Net: s.network()}
	}
	if s.kind == HandleTCP {
		return &net.TCPAddr{}
	}
	return &net.UnixAddr{Net: s.network()}
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

func zone(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return ""
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
