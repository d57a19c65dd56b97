package lazyconn

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Standard is what a *net.TCPConn and a *net.UnixConn have in common.
type Standard interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
	SyscallConn() (syscall.RawConn, error)
	File() (*os.File, error)
}

// keptAfter is how many reads on the file make a connection a kept one; net/http makes two for each
// request. To pass to package net costs some 20 system calls, as much as a request or two, and saves
// each request an allocation and a few conversions, about 1 %. A connection of a few requests would
// pay for nothing.
const keptAfter = 64

// change passes to the last stage.
func (c *Conn) change() error {
	if !c.enter() {
		return net.ErrClosed
	}
	defer c.leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final.Load() {
		return nil
	}
	f, err := c.fileLocked()
	if err != nil {
		return err
	}
	was := c.options()
	conn, err := net.FileConn(f) // over a duplicate
	if err != nil {
		return err
	}
	c.restore(was)
	c.passDeadlines(conn)
	c.std = conn.(Standard)
	c.final.Store(true)
	return nil
}

// netSets are the options of TCP that net.FileConn sets, and to what.
var netSets = [...]struct{ level, opt, value int }{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
}

// options reads what netSets names: the connection may have it from its listener, or from another
// process.
func (c *Conn) options() (is [len(netSets)]int) {
	for i, o := range netSets {
		is[i] = o.value
		if v, err := unix.GetsockoptInt(c.fd, o.level, o.opt); c.tcp && err == nil {
			is[i] = v
		}
	}
	return is
}

// restore sets what net.FileConn has changed.
func (c *Conn) restore(was [len(netSets)]int) {
	for i, o := range netSets {
		if was[i] != o.value {
			_ = unix.SetsockoptInt(c.fd, o.level, o.opt, was[i])
		}
	}
}

// standard returns the last stage, and passes to it if need be.
func (c *Conn) standard(op string) (Standard, error) {
	if !c.final.Load() {
		if err := c.change(); err != nil {
			if oe, ok := err.(*net.OpError); ok { // of net.FileConn
				err = oe.Err
			}
			return nil, c.opError(op, err)
		}
	}
	return c.std, nil
}

// as returns the last stage as T. If it is for a write, it waits for a Write that began before.
func as[T Standard](c *Conn, op string) (t T, err error) {
	s, err := c.standard(op)
	if op == "write" {
		c.writing.Lock()
		defer c.writing.Unlock()
	}
	if err == nil {
		var ok bool
		if t, ok = s.(T); !ok {
			err = c.opError(op, errors.ErrUnsupported)
		}
	}
	return t, err
}

// TCPConn returns the connection as package net's, which stays c's: see fdipc.Socket. If the client
// has reset the connection it may be an error that wraps ENOTCONN: the kernel has forgotten the
// client's address, and users of a *net.TCPConn without one panic.
func (c *Conn) TCPConn() (*net.TCPConn, error) {
	t, err := as[*net.TCPConn](c, "tcpconn")
	if err != nil {
		return nil, err
	}
	if t.RemoteAddr() == nil {
		return nil, c.opError("tcpconn", os.NewSyscallError("getpeername", syscall.ENOTCONN))
	}
	c.plain.Store(true)
	return t, nil
}

// UnixConn is TCPConn for a Unix connection, which has no addresses to forget.
func UnixConn(c *Conn, op string) (*net.UnixConn, error) { return as[*net.UnixConn](c, op) }

// Lend returns the descriptor of c, which stays c's, to be sent to another process. It need not
// join the poller for that. From then on Close only closes.
func Lend(c *Conn) (fd int, err error) {
	if c.users.Load()&closing != 0 {
		return -1, net.ErrClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plain.Store(true)
	if c.final.Load() {
		return fd, control(c.std, func(n int) { fd = n })
	}
	c.lent.Store(true)
	return c.fd, nil
}

func control(s Standard, f func(fd int)) error {
	raw, err := s.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
	return err
}

// ReadFrom writes what it reads from r until its end. A file is sent by sendfile(2), and what a
// connection receives by splice(2), as package net does.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	from := any(r)
	if limited, ok := r.(*io.LimitedReader); ok {
		from = limited.R
	}
	if _, raw := from.(syscall.Conn); !raw && !c.final.Load() {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	t, err := as[*net.TCPConn](c, "write")
	if err != nil {
		return 0, err
	}
	return t.ReadFrom(r)
}

// WriteTo writes what it reads from c to w until the end.
func (c *Conn) WriteTo(w io.Writer) (int64, error) {
	if _, raw := w.(syscall.Conn); !raw && !c.final.Load() {
		return io.Copy(w, struct{ io.Reader }{c})
	}
	t, err := as[*net.TCPConn](c, "read")
	if err != nil {
		return 0, err
	}
	return t.WriteTo(w)
}

// SyscallConn returns raw access. From then on Close only closes: others may use the connection.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	s, err := c.standard("raw-control")
	if err != nil {
		return nil, err
	}
	c.plain.Store(true)
	return s.SyscallConn()
}

// File returns a duplicate of the descriptor, owned by the caller. From then on Close only closes.
func (c *Conn) File() (*os.File, error) {
	s, err := c.standard("file")
	if err != nil {
		return nil, err
	}
	c.plain.Store(true)
	return s.File()
}

// CloseRead shuts down the reading half.
func (c *Conn) CloseRead() error { return c.shutdown(unix.SHUT_RD, Standard.CloseRead) }

// CloseWrite shuts down the writing half: the peer sees the end at once, whoever else has the
// descriptor.
func (c *Conn) CloseWrite() error { return c.shutdown(unix.SHUT_WR, Standard.CloseWrite) }

func (c *Conn) shutdown(how int, std func(Standard) error) error {
	if !c.enter() {
		return c.opError("close", net.ErrClosed)
	}
	defer c.leave()
	if c.final.Load() {
		return std(c.std)
	}
	if err := unix.Shutdown(c.fd, how); err != nil {
		return c.opError("close", os.NewSyscallError("shutdown", err))
	}
	return nil
}

// SetReadBuffer sets the size of the kernel's receive buffer, in bytes.
func (c *Conn) SetReadBuffer(bytes int) error {
	return set(c, func(s Standard) error { return s.SetReadBuffer(bytes) })
}

// SetWriteBuffer sets the size of the kernel's send buffer, in bytes.
func (c *Conn) SetWriteBuffer(bytes int) error {
	return set(c, func(s Standard) error { return s.SetWriteBuffer(bytes) })
}

// SetNoDelay is that of *net.TCPConn, as are those that follow.
func (c *Conn) SetNoDelay(on bool) error {
	return set(c, func(t *net.TCPConn) error { return t.SetNoDelay(on) })
}

// SetKeepAlive turns keep-alive probes on or off.
func (c *Conn) SetKeepAlive(on bool) error {
	return set(c, func(t *net.TCPConn) error { return t.SetKeepAlive(on) })
}

// SetLinger sets how Close treats data not yet sent: sec < 0 in the background, 0 dropped, else
// waits.
func (c *Conn) SetLinger(sec int) error {
	return set(c, func(t *net.TCPConn) error { return t.SetLinger(sec) })
}

// SetKeepAlivePeriod sets the silence before the first keep-alive probe.
func (c *Conn) SetKeepAlivePeriod(d time.Duration) error {
	return set(c, func(t *net.TCPConn) error { return t.SetKeepAlivePeriod(d) })
}

// SetKeepAliveConfig sets all that belongs to keep-alive probes.
func (c *Conn) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	return set(c, func(t *net.TCPConn) error { return t.SetKeepAliveConfig(config) })
}

// MultipathTCP reports whether the connection is one of Multipath TCP.
func (c *Conn) MultipathTCP() (is bool, err error) {
	err = set(c, func(t *net.TCPConn) error { is, err = t.MultipathTCP(); return err })
	return is, err
}

func set[T Standard](c *Conn, option func(T) error) error {
	t, err := as[T](c, "set")
	if err != nil {
		return err
	}
	return option(t)
}
