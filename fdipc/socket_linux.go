package fdipc

import (
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

	"golang.org/x/sys/unix"
)

// Socket is the net.Conn that [Handle.Conn] makes of a TCP or Unix connection. It does what a
// *net.TCPConn does, for less: net.FileConn would duplicate the descriptor, ask the kernel for its type and
// names, and register it with the poller at once.
//
// A Socket is lazy. It makes plain non-blocking calls first and joins the runtime's
// poller at the first call that would block. A short connection never does.
//
// Errors are *net.OpError; they satisfy net.Error and match os.ErrDeadlineExceeded and net.ErrClosed.
// Addresses are *net.TCPAddr or *net.UnixAddr, asked for when they are wanted. Close shuts the connection down if the process
// it came from still has its copy, unless SyscallConn or File was used. With SetLinger(0) at such a moment the client
// sees a FIN where it would have seen a reset.
//
// All methods may be called concurrently. Writes are not interleaved. A Socket that is dropped without
// Close keeps its descriptor.
type Socket struct {
	fd   int
	kind HandleKind

	// What remains of the hand-over; table is nil for a connection that has nothing to do with one.
	table *table
	ref   ref

	users   atomic.Int64            // 2 * calls in progress + closing
	file    atomic.Pointer[os.File] // set once, when the poller is needed; it owns fd then
	plain   atomic.Bool             // others may use the descriptor: close, do not shut down
	readBy  atomic.Int64            // deadlines before there is a file, by the clock of now; 0: none
	writeBy atomic.Int64

	writing sync.Mutex // held around a whole Write
	mu      sync.Mutex // guards the fields below, and the making of file
	readAt  time.Time  // deadlines as given, until there is a file
	writeAt time.Time

	local, remote atomic.Pointer[net.Addr] // once they were asked for
}

const closing = 1

// enter begins a call that uses fd; leave must follow if it says true.
func (s *Socket) enter() bool {
	if s.users.Add(2)&closing == 0 {
		return true
	}
	s.leave()
	return false
}

func (s *Socket) leave() {
	if s.users.Add(-2) == closing && s.file.Load() == nil {
		s.destroy()
	}
}

// destroy closes the descriptor of a Socket that never met the poller. It is reached once:
// see the swap.
func (s *Socket) destroy() {
	if s.users.CompareAndSwap(closing, closing-1<<40) {
		s.finish()
		closeFD(s.fd)
	}
}

// finish sends the FIN that closing alone would not send, because the process that handed
// the connection over has not yet closed its copy.
func (s *Socket) finish() {
	if s.table != nil && !s.plain.Load() && s.table.load(s.ref.slot) == word(s.ref.seq, 0, wordClaimed) {
		shutdownFD(s.fd)
	}
}

// Close closes the connection. Calls that block return with net.ErrClosed.
func (s *Socket) Close() error {
	for {
		u := s.users.Load()
		if u&closing != 0 {
			return s.opError("close", net.ErrClosed)
		}
		if s.users.CompareAndSwap(u, u|closing) {
			break
		}
	}
	s.mu.Lock()
	f := s.file.Load() // from here on it stays as it is: see poller
	s.mu.Unlock()
	if f == nil {
		if s.users.Load() == closing {
			s.destroy()
		}
		return nil
	}
	s.finish()
	if err := f.Close(); err != nil {
		return s.opError("close", err)
	}
	return nil
}

// poller returns the file through which calls can block, and makes it at the first use. It
// must be called between enter and leave.
func (s *Socket) poller() (*os.File, error) {
	if f := s.file.Load(); f != nil {
		return f, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.file.Load(); f != nil {
		return f, nil
	}
	if s.users.Load()&closing != 0 {
		return nil, net.ErrClosed
	}
	f := os.NewFile(uintptr(s.fd), "socket")
	if !s.readAt.IsZero() {
		f.SetReadDeadline(s.readAt)
	}
	if !s.writeAt.IsZero() {
		f.SetWriteDeadline(s.writeAt)
	}
	s.file.Store(f)
	return f, nil
}

func passed(by *atomic.Int64) bool {
	t := by.Load()
	return t != 0 && now() >= t
}

// Read reads what there is, and waits if there is nothing.
func (s *Socket) Read(p []byte) (int, error) {
	if !s.enter() {
		return 0, s.opError("read", net.ErrClosed)
	}
	defer s.leave()
	if s.file.Load() == nil {
		if passed(&s.readBy) {
			return 0, s.opError("read", os.ErrDeadlineExceeded)
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, err := retry(s.call(rawRead, syscall.Read), s.fd, p)
		switch {
		case err == nil && n == 0:
			return 0, io.EOF
		case err == nil:
			return n, nil
		case err != syscall.EAGAIN:
			return 0, s.opError("read", os.NewSyscallError("read", err))
		}
	}
	f, err := s.poller()
	if err != nil {
		return 0, s.opError("read", err)
	}
	n, err := f.Read(p)
	if err != nil && err != io.EOF {
		err = s.opError("read", err)
	}
	return n, err
}

// Write writes all of p, and waits while there is no room.
func (s *Socket) Write(p []byte) (int, error) {
	if !s.enter() {
		return 0, s.opError("write", net.ErrClosed)
	}
	defer s.leave()
	s.writing.Lock()
	defer s.writing.Unlock()
	done := 0
	if s.file.Load() == nil {
		if passed(&s.writeBy) {
			return 0, s.opError("write", os.ErrDeadlineExceeded)
		}
		for done < len(p) {
			n, err := retry(s.call(rawWrite, syscall.Write), s.fd, p[done:])
			if n > 0 {
				done += n
			}
			if err == syscall.EAGAIN {
				break
			}
			if err != nil {
				return done, s.opError("write", os.NewSyscallError("write", err))
			}
		}
		if done == len(p) {
			return done, nil
		}
	}
	f, err := s.poller()
	if err != nil {
		return done, s.opError("write", err)
	}
	n, err := f.Write(p[done:])
	if err != nil {
		err = s.opError("write", err)
	}
	return done + n, err
}

// call chooses how the kernel is asked. The descriptor is non-blocking, so the scheduler need not hear of the call: that
// would wake its monitor thread, which costs a process that comes and goes to rest for each connection more than
// the call does. Once others may use the descriptor they may have made it blocking.
func (s *Socket) call(raw, told func(int, []byte) (int, error)) func(int, []byte) (int, error) {
	if s.plain.Load() {
		return told
	}
	return raw
}

func rawRead(fd int, p []byte) (int, error) { return rawCall(unix.SYS_READ, fd, p) }

func rawWrite(fd int, p []byte) (int, error) { return rawCall(unix.SYS_WRITE, fd, p) }

func rawCall(nr uintptr, fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(nr, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
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
func (s *Socket) opError(op string, err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		err = pe.Err
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError(op, errno)
		}
	}
	if err == os.ErrClosed {
		err = net.ErrClosed
	}
	return &net.OpError{Op: op, Net: s.network(), Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

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

// SyscallConn gives raw access. From then on Close only closes: others may use the connection.
func (s *Socket) SyscallConn() (syscall.RawConn, error) {
	if !s.enter() {
		return nil, s.opError("raw-control", net.ErrClosed)
	}
	defer s.leave()
	f, err := s.poller()
	if err != nil {
		return nil, s.opError("raw-control", err)
	}
	s.plain.Store(true)
	return f.SyscallConn()
}

// File returns a duplicate of the descriptor, owned by the caller. It leaves the
// connection non-blocking. From then on Close only closes.
func (s *Socket) File() (*os.File, error) {
	if !s.enter() {
		return nil, s.opError("file", net.ErrClosed)
	}
	defer s.leave()
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, s.opError("file", os.NewSyscallError("fcntl", err))
	}
	s.plain.Store(true)
	return os.NewFile(uintptr(fd), "socket"), nil
}

// Standard returns the connection as package net makes it, a *net.TCPConn or *net.UnixConn owned
// by the caller, and ends s. Its FIN may be late by the few milliseconds until the
// process it came from has closed its copy.
func (s *Socket) Standard() (net.Conn, error) {
	f, err := s.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return c, s.Close()
}

func zone(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return ""
}

// socketFD gives the descriptor of a Socket that is to be sent on. It need not join the poller for that.
func socketFD(v any) (fd int, ok bool, err error) {
	s, ok := v.(*Socket)
	if !ok {
		return -1, false, nil
	}
	if !s.enter() {
		return -1, true, net.ErrClosed
	}
	defer s.leave()
	s.plain.Store(true)
	return s.fd, true, nil
}

// netConn makes a net.Conn of what h owns.
func (h *Handle) netConn() (net.Conn, error) {
	kind := h.kindLocked()
	switch kind {
	case HandleTCP, HandleUnix, HandleUnixPacket:
		if h.v == nil {
			s := &Socket{fd: int(h.fd), kind: kind, ref: h.ref}
			if !h.moved {
				s.table = h.table()
			}
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
