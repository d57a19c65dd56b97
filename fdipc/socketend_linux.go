package fdipc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socketpair makes a connected pair of sockets for [New]. Both are close-on-exec and
// non-blocking, and owned by the caller. local is for this process, remote for the other:
// it goes there as a handle, or as an inherited descriptor.
func Socketpair() (local, remote *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("fdipc: %w", refused("socketpair", err, needsUnix))
	}
	return os.NewFile(uintptr(p[0]), "fdipc"), os.NewFile(uintptr(p[1]), "fdipc"), nil
}

// socketEnd is an endpoint over a SOCK_SEQPACKET socket.
type socketEnd struct {
	f        *os.File
	rc       syscall.RawConn
	draining atomic.Bool
}

// newSocketEnd takes ownership of f.
func newSocketEnd(f *os.File) (endpoint, error) {
	s := &socketEnd{f: f}
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	s.rc = rc
	var typ, domain int
	cerr := rc.Control(func(fd uintptr) {
		typ, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE)
		if err != nil {
			return
		}
		if domain, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
			return
		}
		unix.CloseOnExec(int(fd))
		growBuffer(int(fd))
		err = unix.SetNonblock(int(fd), true)
	})
	switch {
	case cerr != nil:
		err = cerr
	case err != nil:
		err = os.NewSyscallError("getsockopt", err)
	case domain != unix.AF_UNIX || typ != unix.SOCK_SEQPACKET:
		err = errors.New("not a Unix socket of type SOCK_SEQPACKET")
	default:
		if f.SetReadDeadline(time.Time{}) != nil {
			// It was blocking when f was made, so f is not in the poller: make it anew.
			return renewSocketEnd(f)
		}
		return s, nil
	}
	f.Close()
	return nil, err
}

// growBuffer lets a socket hold more than a few packets, if the system permits it; one must fit in
// any case.
func growBuffer(fd int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8*sendPacket)
}

// duplicate returns a file of its own over the descriptor of c, which stays the caller's.
func duplicate(c syscall.Conn) (*os.File, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if cerr := rc.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "fdipc"), nil
}

func renewSocketEnd(f *os.File) (endpoint, error) {
	defer f.Close()
	n, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	if err := n.SetReadDeadline(time.Time{}); err != nil {
		n.Close()
		return nil, err
	}
	s := &socketEnd{f: n}
	s.rc, err = n.SyscallConn()
	return s, err
}

func (s *socketEnd) sent(p *packet, err error) error {
	switch {
	case err != nil:
		return s.closed(err)
	case p.io.errno == 0:
		return nil
	case p.io.errno == unix.EAGAIN, p.io.errno == unix.ETOOMANYREFS, p.io.errno == unix.ENOBUFS, p.io.errno == unix.ENOMEM:
		return errAgain
	case p.io.errno == unix.EPIPE || p.io.errno == unix.ECONNRESET:
		return ErrPeerLost
	}
	return os.NewSyscallError("sendmsg", p.io.errno)
}

func (s *socketEnd) closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	return err
}

func (s *socketEnd) try(p *packet) error  { return s.sent(p, s.rc.Control(p.io.try)) }
func (s *socketEnd) send(p *packet) error { return s.sent(p, s.rc.Write(p.io.send)) }

func (s *socketEnd) recv(p *packet) error {
	for {
		var err error
		if s.draining.Load() {
			err = s.rc.Control(p.io.poll)
		} else {
			err = s.rc.Read(p.io.recv)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && s.draining.Load():
			continue
		case err != nil:
			return s.closed(err)
		}
		switch p.io.errno {
		case 0:
		case unix.EAGAIN: // only when draining
			return io.EOF
		case unix.ECONNRESET:
			// The peer closed with packets of ours unread. The kernel says so once; what it sent
			// before can still be read.
			continue
		default:
			return os.NewSyscallError("recvmsg", p.io.errno)
		}
		return p.parse()
	}
}

func (s *socketEnd) drain() {
	s.draining.Store(true)
	s.f.SetReadDeadline(time.Unix(1, 0)) // wakes recv
}

func (s *socketEnd) ended() bool {
	p := [1]unix.PollFd{{Events: unix.POLLRDHUP}}
	n := 0
	_ = s.rc.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		n, _ = unix.Poll(p[:], 0)
	})
	return n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP) != 0
}

func (s *socketEnd) stop() {
	_ = s.rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	s.drain()
	s.f.SetWriteDeadline(time.Unix(1, 0))
}

func (s *socketEnd) pause(reads, writes bool) {
	s.f.SetWriteDeadline(pausedUntil(writes))
	s.f.SetReadDeadline(pausedUntil(reads))
	if s.draining.Load() {
		s.f.SetReadDeadline(pausedUntil(true)) // which the call above may have undone
	}
}

// pausedUntil returns the deadline that ends what waits, or none.
func pausedUntil(paused bool) (t time.Time) {
	if paused {
		t = time.Unix(1, 0)
	}
	return t
}

func (s *socketEnd) close() error { return s.f.Close() }

func (s *socketEnd) pair() (endpoint, attachment, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, noAttachment, refused("socketpair", err, needsUnix)
	}
	e, err := newSendEnd(p[0])
	if err != nil {
		unix.Close(p[1])
		return nil, noAttachment, err
	}
	return e, attachment{fd: p[1]}, nil
}

func (s *socketEnd) adopt(g attachment) (endpoint, error) {
	if err := unix.SetNonblock(g.fd, true); err != nil {
		g.close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return newSocketEnd(os.NewFile(uintptr(g.fd), "fdipc data"))
}

// maxFiles is how many descriptors this process may have.
func maxFiles() int {
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<30))
}

// connectedFD reports whether a socket has a peer. To shut down one that has none is worse than
// useless: a listening socket that another process has shut down looks like a connection, and what
// it accepts when it listens again would be shut down from birth.
func connectedFD(fd int) bool {
	_, err := unix.Getpeername(fd)
	return err == nil
}

func shutdownFD(fd int) {
	_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_RDWR, 0)
}
