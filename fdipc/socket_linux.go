package fdipc

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
// Addresses are *net.TCPAddr or *net.UnixAddr: those of the accept, where the sender has said them, else what the
// kernel says when the Socket is made. Close shuts the connection down if the process
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
	ref   offerID

	users   atomic.Int64            // 2 * calls in progress + closing
	file    atomic.Pointer[os.File] // set once, when the poller is needed; it owns fd then
	plain   atomic.Bool             // others may use the descriptor: close, do not shut down
	readBy  atomic.Int64            // deadlines before there is a file, by the clock of now; 0: none
	writeBy atomic.Int64

	writing sync.Mutex // held around a whole Write
	mu      sync.Mutex // guards the fields below, and the making of file
	readAt  time.Time  // deadlines as given, until there is a file
	writeAt time.Time

	accepted      string                   // see Accepted, as on the wire
	local, remote atomic.Pointer[net.Addr] // of it, once they were asked for
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
	if !s.users.CompareAndSwap(closing, closing-1<<40) {
		return
	}
	kept := s.finish()
	if s.kind == HandleTCP && preempts && (kept || !lingers(s.fd)) { // what is kept elsewhere does not linger here
		rawClose(s.fd)
		return
	}
	closeFD(s.fd)
}

// finish sends the FIN that closing alone would not send, because the process that handed
// the connection over has not yet closed its copy. It reports whether that was so.
func (s *Socket) finish() bool {
	kept := s.table != nil && !s.plain.Load() && s.table.load(s.ref.slot) == word(s.ref.seq, 0, wordClaimed)
	if kept {
		shutdownFD(s.fd)
	}
	return kept
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

// call chooses how the kernel is asked. A raw call does not wait for the network, whatever others that have the
// connection have made of its O_NONBLOCK, so the scheduler need not hear of it: that
// would wake its monitor thread, which costs a process that comes and goes to rest for each connection more than
// the call does. It hears of a Unix socket's: a read closes the descriptors that come with the bytes, and a close may wait.
// Once this process may use the descriptor otherwise, it may want to wait.
func (s *Socket) call(raw, told func(int, []byte) (int, error)) func(int, []byte) (int, error) {
	if s.plain.Load() || s.kind != HandleTCP {
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
// by the caller, and ends s. If the client has reset the connection it is an error that wraps ENOTCONN: the kernel has
// forgotten the client's address. Its FIN may be late by the few milliseconds until the
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
	if c.RemoteAddr() == nil { // package net has asked the kernel, which has forgotten it
		return nil, errors.Join(s.opError("standard", os.NewSyscallError("getpeername", syscall.ENOTCONN)), c.Close(), s.Close())
	}
	return c, s.Close()
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
			s := &Socket{fd: int(h.fd), kind: kind, ref: h.ref, accepted: h.accepted}
			if s.accepted == "" {
				s.accepted = askAccepted(s.fd)
			}
			if !h.wasSent {
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
