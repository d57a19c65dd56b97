package lazyconn

import (
	"cmp"
	"math"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// CloseRead shuts down the reading half.
func (c *Conn) CloseRead() error { return c.shutdown(unix.SHUT_RD) }

// CloseWrite shuts down the writing half: the peer sees the end at once, whoever else has the
// descriptor.
func (c *Conn) CloseWrite() error { return c.shutdown(unix.SHUT_WR) }

func (c *Conn) shutdown(how int) error {
	return c.control("shutdown", func() error { return unix.Shutdown(c.fd, how) })
}

// SetNoDelay is that of *net.TCPConn, as are SetKeepAlive and SetLinger. An accepted connection
// inherits the first two from its listener, where they cost nothing.
func (c *Conn) SetNoDelay(on bool) error {
	return c.setInt(unix.IPPROTO_TCP, unix.TCP_NODELAY, on)
}

// SetKeepAlive turns keep-alive probes on or off.
func (c *Conn) SetKeepAlive(on bool) error {
	return c.setInt(unix.SOL_SOCKET, unix.SO_KEEPALIVE, on)
}

// SetLinger sets how Close treats data not yet sent: sec < 0 in the background, 0 dropped, else
// waits.
func (c *Conn) SetLinger(sec int) error {
	return c.control("setsockopt", func() error {
		l := &unix.Linger{}
		if sec >= 0 {
			l.Onoff, l.Linger = 1, int32(sec)
		}
		return unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, l)
	})
}

// SetKeepAlivePeriod sets the silence before the first keep-alive probe; below 0 it changes
// nothing.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error { return c.setSeconds(unix.TCP_KEEPIDLE, d) }

// SetKeepAliveConfig sets all that belongs to keep-alive probes. As in package net, 0 is that
// package's default, and below 0 the kernel's value stays.
func (c *Conn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	if err := c.SetKeepAlive(config.Enable); err != nil {
		return err
	}
	if err := c.setSeconds(unix.TCP_KEEPIDLE, config.Idle); err != nil {
		return err
	}
	if err := c.setSeconds(unix.TCP_KEEPINTVL, config.Interval); err != nil {
		return err
	}
	if config.Count < 0 {
		return nil
	}
	return c.set(unix.IPPROTO_TCP, unix.TCP_KEEPCNT, cmp.Or(config.Count, defaultKeepAliveCount))
}

// The defaults of package net.
const (
	defaultKeepAlive      = 15 * time.Second
	defaultKeepAliveCount = 9
)

// setSeconds sets an option of TCP to d, rounded up to seconds. 0 is the default; below 0 the
// kernel's value stays.
func (c *Conn) setSeconds(opt int, d time.Duration) error {
	if d < 0 {
		return nil
	}
	return c.set(unix.IPPROTO_TCP, opt, int((cmp.Or(d, defaultKeepAlive)+time.Second-time.Nanosecond)/time.Second))
}

// MultipathTCP reports whether the connection is one of Multipath TCP.
func (c *Conn) MultipathTCP() (is bool, err error) {
	const mptcpInfo = 1 // MPTCP_INFO, linux/mptcp.h
	err = c.control("getsockopt", func() error {
		protocol, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil || protocol != unix.IPPROTO_MPTCP {
			return err
		}
		_, err = unix.GetsockoptInt(c.fd, unix.SOL_MPTCP, mptcpInfo)
		is = err != unix.EOPNOTSUPP && err != unix.ENOPROTOOPT // these say that it has fallen back to TCP
		return nil
	})
	return is, err
}

// SetReadBuffer sets the size of the kernel's receive buffer, in bytes.
func (c *Conn) SetReadBuffer(bytes int) error { return c.set(unix.SOL_SOCKET, unix.SO_RCVBUF, bytes) }

// SetWriteBuffer sets the size of the kernel's send buffer, in bytes.
func (c *Conn) SetWriteBuffer(bytes int) error { return c.set(unix.SOL_SOCKET, unix.SO_SNDBUF, bytes) }

func (c *Conn) set(level, opt, v int) error {
	return c.control("setsockopt", func() error { return unix.SetsockoptInt(c.fd, level, opt, v) })
}

func (c *Conn) setInt(level, opt int, on bool) error {
	v := 0
	if on {
		v = 1
	}
	return c.set(level, opt, v)
}

func (c *Conn) control(name string, f func() error) error {
	if !c.enter() {
		return c.opError("set", net.ErrClosed)
	}
	defer c.leave()
	if err := f(); err != nil {
		return c.opError("set", os.NewSyscallError(name, err))
	}
	return nil
}

func passed(by *atomic.Int64) bool {
	t := by.Load()
	return t != 0 && now() >= t
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error { return c.setDeadline(t, true, true) }

// SetReadDeadline sets the deadline of reads, those that wait included. The zero value means none.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.setDeadline(t, true, false) }

// SetWriteDeadline sets the deadline of writes, those that wait included. The zero value means
// none.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.setDeadline(t, false, true) }

func (c *Conn) setDeadline(t time.Time, read, write bool) error {
	if !c.enter() {
		return c.opError("set", net.ErrClosed)
	}
	defer c.leave()
	if err := c.deadlines(t, read, write); err != nil {
		return c.opError("set", err)
	}
	return nil
}

func (c *Conn) deadlines(t time.Time, read, write bool) error {
	f := c.file.Load()
	if f == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		f = c.file.Load() // it may have been made meanwhile, with the deadlines of before
	}
	if f == nil {
		var by int64
		if !t.IsZero() {
			by = max(1, now()+int64(min(time.Until(t), math.MaxInt64/2)))
		}
		if read {
			c.readAt = t
			c.readBy.Store(by)
		}
		if write {
			c.writeAt = t
			c.writeBy.Store(by)
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

var epoch = time.Now()

// now is a clock that only goes forward, in nanoseconds.
func now() int64 { return int64(time.Since(epoch)) }
