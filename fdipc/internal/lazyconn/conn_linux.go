// Package lazyconn has the stream connection that joins the runtime's poller late. It makes plain
// non-blocking calls first and joins the poller at the first call that would block; a short
// connection never does, which saves it system calls and the wake-up of a thread.
package lazyconn

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/closer"
	"golang.org/x/sys/unix"
)

// Conn does what a *net.TCPConn or *net.UnixConn does, but for its addresses, which its owner
// knows. fdipc.Socket is its owner, and says what its users may expect. Init must be called first.
//
// All methods may be called concurrently. Writes are not interleaved.
type Conn struct {
	fd      int
	network string
	tcp     bool
	owner   Owner
	place   claims.Place // of the descriptor, at the process that it came from; or none

	users   atomic.Int64            // 2 * calls in progress + closing
	file    atomic.Pointer[os.File] // set once, when the poller is needed; it owns fd then
	plain   atomic.Bool             // others may use the descriptor: close, do not shut down
	readBy  atomic.Int64            // deadlines before there is a file, by the clock of now; 0: none
	writeBy atomic.Int64

	writing sync.Mutex // held around a whole Write
	mu      sync.Mutex // guards the fields below, and the making of file
	readAt  time.Time  // deadlines as given, until there is a file
	writeAt time.Time
}

// Owner knows the addresses of a Conn, for its errors.
type Owner interface {
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// What only the owner may call are functions, so that they are not promoted to its users.

// Init makes c a Conn over fd, a connected stream or seqpacket socket that is non-blocking. It
// takes ownership of fd. place is that of the offer by which it came here, or none: while it is
// held, another process has a copy.
func Init(c *Conn, fd int, network string, owner Owner, place claims.Place) {
	c.fd, c.network, c.tcp, c.owner, c.place = fd, network, network == "tcp", owner, place
}

// FD returns the descriptor, which stays c's.
func FD(c *Conn) int { return c.fd }

// Network returns the name of c's network, as package net has it.
func Network(c *Conn) string { return c.network }

// Lend returns the descriptor of c, which stays c's, to be sent to another process. It need not
// join the poller for that. From then on Close only closes.
func Lend(c *Conn) (fd int, err error) {
	if !c.enter() {
		return -1, net.ErrClosed
	}
	defer c.leave()
	c.plain.Store(true)
	return c.fd, nil
}

const closing = 1

// enter begins a call that uses fd, and reports whether it may go on; leave must follow if so.
func (c *Conn) enter() bool {
	if c.users.Add(2)&closing == 0 {
		return true
	}
	c.leave()
	return false
}

func (c *Conn) leave() {
	if c.users.Add(-2) == closing && c.file.Load() == nil {
		c.destroy()
	}
}

// destroy closes the descriptor of a Conn that never joined the poller. It is reached once:
// see the swap.
func (c *Conn) destroy() {
	if !c.users.CompareAndSwap(closing, closing-1<<40) {
		return
	}
	kept := c.finish()
	if c.tcp {
		closer.TCP(c.fd, kept)
		return
	}
	closer.FD(c.fd)
}

// finish sends the FIN that closing alone would not send while the process that handed the
// connection over has a copy. It reports whether that process has one.
func (c *Conn) finish() bool {
	kept := !c.plain.Load() && c.place.Held()
	if kept {
		_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(c.fd), unix.SHUT_RDWR, 0)
	}
	return kept
}

// Close closes the connection. Calls that block return with net.ErrClosed.
func (c *Conn) Close() error {
	for {
		u := c.users.Load()
		if u&closing != 0 {
			return c.opError("close", net.ErrClosed)
		}
		if c.users.CompareAndSwap(u, u|closing) {
			break
		}
	}
	c.mu.Lock()
	f := c.file.Load() // it does not change after this: see poller
	c.mu.Unlock()
	if f == nil {
		if c.users.Load() == closing {
			c.destroy()
		}
		return nil
	}
	c.finish()
	if err := f.Close(); err != nil {
		return c.opError("close", err)
	}
	return nil
}

// poller returns the file through which calls can block, and makes it at the first use. It
// must be called between enter and leave.
func (c *Conn) poller() (*os.File, error) {
	if f := c.file.Load(); f != nil {
		return f, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.file.Load(); f != nil {
		return f, nil
	}
	if c.users.Load()&closing != 0 {
		return nil, net.ErrClosed
	}
	f := os.NewFile(uintptr(c.fd), "socket")
	if !c.readAt.IsZero() {
		f.SetReadDeadline(c.readAt)
	}
	if !c.writeAt.IsZero() {
		f.SetWriteDeadline(c.writeAt)
	}
	c.file.Store(f)
	return f, nil
}

// Read reads what there is, and waits if there is nothing.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.enter() {
		return 0, c.opError("read", net.ErrClosed)
	}
	defer c.leave()
	if c.file.Load() == nil {
		if passed(&c.readBy) {
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, err := retry(c.call(rawRead, syscall.Read), c.fd, p)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			return n, nil
		case err != syscall.EAGAIN:
			return 0, c.opError("read", os.NewSyscallError("read", err))
		}
	}
	f, err := c.poller()
	if err != nil {
		return 0, c.opError("read", err)
	}
	n, err := f.Read(p)
	if err != nil && err != io.EOF {
		err = c.opError("read", err)
	}
	return n, err
}

// Write writes all of p, and waits while there is no room.
func (c *Conn) Write(p []byte) (int, error) {
	if !c.enter() {
		return 0, c.opError("write", net.ErrClosed)
	}
	defer c.leave()
	c.writing.Lock()
	defer c.writing.Unlock()
	done := 0
	if c.file.Load() == nil {
		if passed(&c.writeBy) {
			return 0, c.opError("write", os.ErrDeadlineExceeded)
		}
		for done < len(p) {
			n, err := retry(c.call(rawWrite, syscall.Write), c.fd, p[done:])
			if n > 0 {
				done += n
			}
			if err == syscall.EAGAIN {
				break
			}
			if err != nil {
				return done, c.opError("write", os.NewSyscallError("write", err))
			}
		}
		if done == len(p) {
			return done, nil
		}
	}
	f, err := c.poller()
	if err != nil {
		return done, c.opError("write", err)
	}
	n, err := f.Write(p[done:])
	if err != nil {
		err = c.opError("write", err)
	}
	return done + n, err
}

// call chooses how the kernel is asked. A raw call does not wait for the network, whatever others
// that have the connection have made of its O_NONBLOCK, so the scheduler need not hear of it: that
// would wake its monitor thread, which costs a process that comes and goes to rest for each
// connection more than the call does. It hears of a Unix socket's: a read closes the descriptors
// that come with the bytes, and a close may wait. Once this process may use the descriptor
// otherwise, it may want to wait.
func (c *Conn) call(raw, told func(int, []byte) (int, error)) func(int, []byte) (int, error) {
	if c.plain.Load() || !c.tcp {
		return told
	}
	return raw
}

func rawRead(fd int, p []byte) (int, error) { return rawCall(unix.SYS_RECVFROM, fd, p, 0) }

func rawWrite(fd int, p []byte) (int, error) {
	return rawCall(unix.SYS_SENDTO, fd, p, unix.MSG_NOSIGNAL)
}

func rawCall(nr uintptr, fd int, p []byte, flags uintptr) (int, error) {
	n, _, errno := syscall.RawSyscall6(nr, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags|unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func retry(call func(int, []byte) (int, error), fd int, p []byte) (int, error) {
	for {
		n, err := call(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// opError makes err what package net would have made of it. Servers meet it once a
// request: net/http ends its background read by a deadline in the past.
func (c *Conn) opError(op string, err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		err = pe.Err
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(op, errno)
		}
	}
	if err == os.ErrClosed {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: c.network, Source: c.owner.LocalAddr(), Addr: c.owner.RemoteAddr(), Err: err}
}

// SyscallConn returns raw access. From then on Close only closes: others may use the connection.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if !c.enter() {
		return nil, c.opError("raw-control", net.ErrClosed)
	}
	defer c.leave()
	f, err := c.poller()
	if err != nil {
		return nil, c.opError("raw-control", err)
	}
	c.plain.Store(true)
	return f.SyscallConn()
}

// File returns a duplicate of the descriptor, owned by the caller. It leaves the
// connection non-blocking. From then on Close only closes.
func (c *Conn) File() (*os.File, error) {
	if !c.enter() {
		return nil, c.opError("file", net.ErrClosed)
	}
	defer c.leave()
	fd, err := unix.FcntlInt(uintptr(c.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, c.opError("file", os.NewSyscallError("fcntl", err))
	}
	c.plain.Store(true)
	return os.NewFile(uintptr(fd), "socket"), nil
}

// Standard returns the connection as package net makes it, a *net.TCPConn or *net.UnixConn owned by
// the caller, and ends c. If the client has reset the connection it is an error that wraps
// ENOTCONN: the kernel has forgotten the client's address. Its FIN may be late by the few
// milliseconds until the process it came from has closed its copy.
func (c *Conn) Standard() (net.Conn, error) {
	f, err := c.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	if n.RemoteAddr() == nil { // package net has asked the kernel, which has forgotten it
		return nil, errors.Join(c.opError("standard", os.NewSyscallError("getpeername", syscall.ENOTCONN)), n.Close(), c.Close())
	}
	return n, c.Close()
}
