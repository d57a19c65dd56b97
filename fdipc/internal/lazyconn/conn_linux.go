// Package lazyconn has the stream connection that becomes one of package net late. It makes plain
// non-blocking calls first, and joins the poller at the first call that would block: a short
// connection never does, which saves it system calls and the wake-up of a thread. One that is kept
// becomes package net's, as does one that is asked for more than reads and writes.
package lazyconn

import (
	"errors"
	"io"
	"io/fs"
	"math"
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
// It has three stages: a bare descriptor; an *os.File over it, from the first call that would block
// on; and a connection of package net over a duplicate, the last stage. It passes to that at once
// when something is called that only package net can do, and after many Reads on the file. In the
// change the first descriptor is closed when no call uses it; calls that wait on the file go on in
// the last stage.
//
// All methods may be called concurrently. Writes are not interleaved.
type Conn struct {
	fd      int
	network string
	tcp     bool
	owner   Owner
	place   claims.Place // of the descriptor, at the process that it came from; or none

	users   atomic.Int64            // 2 * calls that use fd + closing
	file    atomic.Pointer[os.File] // set once, when the poller is needed; it owns fd then
	final   atomic.Bool             // the last stage: std is set
	plain   atomic.Bool             // others may use the descriptor: close, do not shut down
	lent    atomic.Bool             // fd is known elsewhere: it stays open until Close
	retired atomic.Bool             // fd is closed
	reads   atomic.Int32            // how many began on the file
	readBy  atomic.Int64            // deadlines before the last stage, by the clock of now; 0: none
	writeBy atomic.Int64

	writing sync.Mutex // held around a whole Write
	mu      sync.Mutex // held while the stage changes, or a deadline before the last stage
	std     Standard   // guarded by final
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

// Network returns the name of c's network, as package net has it.
func Network(c *Conn) string { return c.network }

// Error returns err as package net makes it of an operation of c.
func Error(c *Conn, op string, err error) error { return c.opError(op, err) }

const closing = 1

// enter begins a call that uses fd, and reports whether it may go on; leave must follow if so. fd
// is not to be used if final is set then.
func (c *Conn) enter() bool {
	if c.users.Add(2)&closing == 0 {
		return true
	}
	c.leave()
	return false
}

func (c *Conn) leave() {
	if u := c.users.Add(-2); u == closing || u == 0 && c.final.Load() && !c.lent.Load() {
		c.retire()
	}
}

// retire closes the first descriptor, once. Calls that wait on the file return.
func (c *Conn) retire() {
	if !c.retired.CompareAndSwap(false, true) {
		return
	}
	kept := !c.final.Load() && c.finish(c.fd)
	switch f := c.file.Load(); {
	case f != nil:
		f.Close()
		if c.final.Load() {
			c.file.Store(nil) // for the garbage collector
		}
	case c.tcp:
		closer.TCP(c.fd, kept)
	default:
		closer.FD(c.fd)
	}
}

// finish sends the FIN that closing alone would not send while the process that handed the
// connection over has a copy. It reports whether that process has one.
func (c *Conn) finish(fd int) bool {
	kept := !c.plain.Load() && c.place.Held()
	if kept {
		_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_RDWR, 0)
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
	if c.users.Load() == closing {
		c.retire()
	} else { // it may be changing
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	if !c.final.Load() { // it does not change after this: see change
		return nil
	}
	if !c.plain.Load() && c.place.Held() {
		_ = control(c.std, func(fd int) { c.finish(fd) })
	}
	return c.std.Close()
}

// poller makes the file through which calls can block. It must be called between enter and leave.
func (c *Conn) poller() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.fileLocked()
	return err
}

func (c *Conn) fileLocked() (*os.File, error) {
	if c.users.Load()&closing != 0 {
		return nil, net.ErrClosed
	}
	f := c.file.Load()
	if f == nil {
		f = os.NewFile(uintptr(c.fd), "socket")
		c.passDeadlines(f)
		c.file.Store(f)
	}
	return f, nil
}

// errNext says that a call goes on in the next stage.
var errNext = errors.New("lazyconn: next stage")

// Read reads what there is, and waits if there is nothing.
func (c *Conn) Read(p []byte) (int, error) {
	if !c.final.Load() && c.file.Load() == nil {
		if n, err := c.bareRead(p); err != errNext {
			return n, err
		}
	}
	if !c.final.Load() {
		if n, err := c.fileRead(p); err != errNext {
			return n, err
		}
	}
	return c.std.Read(p)
}

func (c *Conn) bareRead(p []byte) (int, error) {
	if !c.enter() {
		return 0, c.opError("read", net.ErrClosed)
	}
	defer c.leave()
	switch {
	case c.final.Load():
		return 0, errNext
	case passed(&c.readBy):
		return 0, c.opError("read", os.ErrDeadlineExceeded)
	case len(p) == 0:
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
	if err := c.poller(); err != nil {
		return 0, c.opError("read", err)
	}
	return 0, errNext
}

func (c *Conn) fileRead(p []byte) (int, error) {
	f := c.file.Load()
	if f == nil || c.reads.Add(1) == keptAfter && !c.lent.Load() && c.change() == nil {
		return 0, errNext
	}
	n, err := f.Read(p)
	if err != nil && err != io.EOF {
		err = c.fileError("read", err)
	}
	return n, err
}

// Write writes all of p, and waits while there is no room.
func (c *Conn) Write(p []byte) (done int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.final.Load() && c.file.Load() == nil {
		if done, err = c.bareWrite(p); err != errNext {
			return done, err
		}
	}
	if f := c.file.Load(); !c.final.Load() && f != nil {
		n, err := f.Write(p[done:])
		done += n
		if err != nil {
			err = c.fileError("write", err)
		}
		if err != errNext {
			return done, err
		}
	}
	n, err := c.std.Write(p[done:])
	return done + n, err
}

func (c *Conn) bareWrite(p []byte) (done int, err error) {
	if !c.enter() {
		return 0, c.opError("write", net.ErrClosed)
	}
	defer c.leave()
	switch {
	case c.final.Load():
		return 0, errNext
	case passed(&c.writeBy):
		return 0, c.opError("write", os.ErrDeadlineExceeded)
	}
	for done < len(p) {
		n, err := retry(c.call(rawWrite, syscall.Write), c.fd, p[done:])
		if n > 0 {
			done += n
		}
		switch err {
		case nil:
			continue
		case syscall.EAGAIN:
			if err = c.poller(); err == nil {
				return done, errNext
			}
		default:
			err = os.NewSyscallError("write", err)
		}
		return done, c.opError("write", err)
	}
	return done, nil
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

// opError makes err what package net would have made of it. After Close it is net.ErrClosed.
func (c *Conn) opError(op string, err error) error {
	if c.users.Load()&closing != 0 {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: c.network, Source: c.owner.LocalAddr(), Addr: c.owner.RemoteAddr(), Err: err}
}

// fileError is opError for an error of the file. It is errNext if the file was closed by a change.
func (c *Conn) fileError(op string, err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		err = pe.Err
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(op, errno)
		}
	}
	if err == os.ErrClosed && c.final.Load() {
		return errNext
	}
	return c.opError(op, err)
}

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	if c.final.Load() {
		return c.std.SetDeadline(t)
	}
	if err := c.setDeadline(t, (*os.File).SetDeadline, &c.readBy, &c.writeBy); err != errNext {
		return err
	}
	return c.std.SetDeadline(t)
}

// SetReadDeadline sets the deadline of reads, those that wait included. The zero value means none.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if c.final.Load() {
		return c.std.SetReadDeadline(t)
	}
	if err := c.setDeadline(t, (*os.File).SetReadDeadline, &c.readBy); err != errNext {
		return err
	}
	return c.std.SetReadDeadline(t)
}

// SetWriteDeadline sets the deadline of writes, those that wait included. The zero value means
// none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.final.Load() {
		return c.std.SetWriteDeadline(t)
	}
	if err := c.setDeadline(t, (*os.File).SetWriteDeadline, &c.writeBy); err != errNext {
		return err
	}
	return c.std.SetWriteDeadline(t)
}

func (c *Conn) setDeadline(t time.Time, set func(*os.File, time.Time) error, bys ...*atomic.Int64) error {
	var by int64
	if !t.IsZero() {
		by = max(1, now()+int64(min(time.Until(t), math.MaxInt64/2)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.users.Load()&closing != 0:
		return c.opError("set", net.ErrClosed)
	case c.final.Load():
		return errNext
	}
	for _, b := range bys {
		b.Store(by)
	}
	if f := c.file.Load(); f != nil {
		if err := set(f, t); err != nil {
			return c.fileError("set", err)
		}
	}
	return nil
}

type deadlines interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// passDeadlines sets the deadlines in the next stage.
func (c *Conn) passDeadlines(to deadlines) {
	if t := c.readBy.Load(); t != 0 {
		_ = to.SetReadDeadline(epoch.Add(time.Duration(t)))
	}
	if t := c.writeBy.Load(); t != 0 {
		_ = to.SetWriteDeadline(epoch.Add(time.Duration(t)))
	}
}

func passed(by *atomic.Int64) bool {
	t := by.Load()
	return t != 0 && now() >= t
}

var epoch = time.Now()

// now is a clock that only goes forward, in nanoseconds.
func now() int64 { return int64(time.Since(epoch)) }
