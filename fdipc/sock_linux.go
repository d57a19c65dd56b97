package fdipc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socketpair makes a connected pair of sockets for [New]. Both are close-on-exec and
// non-blocking, and owned by the caller. local is for this process, remote for the other:
// it goes there as a handle, or as an inherited descriptor.
func Socketpair() (local, remote *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("fdipc: %w", os.NewSyscallError("socketpair", err))
	}
	return os.NewFile(uintptr(p[0]), "fdipc"), os.NewFile(uintptr(p[1]), "fdipc"), nil
}

// socket is an end over a SOCK_SEQPACKET socket.
type socket struct {
	f        *os.File
	rc       syscall.RawConn
	draining atomic.Bool
}

// newSocket takes ownership of f.
func newSocket(f *os.File) (end, error) {
	s := &socket{f: f}
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
		if room, _ := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF); room < 4*sendPacket {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 4*sendPacket) // one packet must fit
		}
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
			return renewSocket(f)
		}
		return s, nil
	}
	f.Close()
	return nil, err
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

func renewSocket(f *os.File) (end, error) {
	defer f.Close()
	n, err := duplicate(f)
	if err != nil {
		return nil, err
	}
	if err := n.SetReadDeadline(time.Time{}); err != nil {
		n.Close()
		return nil, err
	}
	s := &socket{f: n}
	s.rc, err = n.SyscallConn()
	return s, err
}

// packetIO is what one system call needs, made once for each packet.
type packetIO struct {
	hdr   unix.Msghdr
	iov   unix.Iovec
	oob   [unix.SizeofCmsghdr + maxFDs*4 + 4 + unix.SizeofCmsghdr + 16]byte // maxFDs descriptors, credentials
	n     int
	errno syscall.Errno

	try  func(uintptr)
	send func(uintptr) bool
	recv func(uintptr) bool
	poll func(uintptr)
}

func (io *packetIO) init(p *packet) {
	io.try = func(fd uintptr) { p.sendmsg(fd) }
	io.send = func(fd uintptr) bool { p.sendmsg(fd); return io.errno != unix.EAGAIN }
	io.recv = func(fd uintptr) bool { p.recvmsg(fd); return io.errno != unix.EAGAIN }
	io.poll = func(fd uintptr) { p.recvmsg(fd) }
}

// sendmsg makes one attempt. The descriptor is non-blocking, so the raw call does not block either.
func (p *packet) sendmsg(fd uintptr) {
	p.load()
	io := &p.io
	io.iov.Base = unsafe.SliceData(p.buf)
	io.iov.SetLen(len(p.buf))
	io.hdr = unix.Msghdr{Iov: &io.iov}
	io.hdr.SetIovlen(1)
	if n := len(p.cargo); n > 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&io.oob[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(n * 4))
		fds := unsafe.Slice((*int32)(unsafe.Pointer(&io.oob[unix.CmsgLen(0)])), n)
		for i, g := range p.cargo {
			fds[i] = int32(g.fd)
		}
		io.hdr.Control = &io.oob[0]
		io.hdr.SetControllen(unix.CmsgSpace(n * 4))
	}
	if raceEnabled {
		raceEdge.Add(1)
	}
	for {
		r, _, e := syscall.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&io.hdr)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		io.n, io.errno = int(r), e
		if e != unix.EINTR {
			break
		}
	}
	p.unload(io.errno == 0)
}

func (p *packet) recvmsg(fd uintptr) {
	io := &p.io
	io.iov.Base = unsafe.SliceData(p.buf)
	io.iov.SetLen(cap(p.buf))
	io.hdr = unix.Msghdr{Iov: &io.iov, Control: &io.oob[0]}
	io.hdr.SetIovlen(1)
	io.hdr.SetControllen(len(io.oob))
	for {
		r, _, e := syscall.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&io.hdr)), unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		io.n, io.errno = int(r), e
		if e != unix.EINTR {
			break
		}
	}
	if raceEnabled {
		raceEdge.Load()
	}
}

// raceEdge tells the race detector what package syscall tells it of read and write: what went before a send
// happened before what follows its receipt.
var raceEdge atomic.Uint32

func (s *socket) sent(p *packet, err error) error {
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

func (s *socket) closed(err error) error {
	if errors.Is(err, os.ErrClosed) {
		return ErrClosed
	}
	return err
}

func (s *socket) try(p *packet) error  { return s.sent(p, s.rc.Control(p.io.try)) }
func (s *socket) send(p *packet) error { return s.sent(p, s.rc.Write(p.io.send)) }

func (s *socket) recv(p *packet) error {
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

// parse takes over what recvmsg brought. Descriptors are in the packet's cargo or closed.
func (p *packet) parse() error {
	h := &p.io.hdr
	p.buf = p.buf[:p.io.n]
	p.cargo = p.cargo[:0]
	p.cut = h.Flags&unix.MSG_CTRUNC != 0
	p.cred = nil
	oob := p.io.oob[:h.Controllen]
	for len(oob) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		n := int(c.Len)
		if n < unix.SizeofCmsghdr || n > len(oob) {
			break
		}
		if c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_RIGHTS {
			for b := oob[unix.CmsgLen(0):n]; len(b) >= 4; b = b[4:] {
				p.cargo = append(p.cargo, cargo{fd: int(*(*int32)(unsafe.Pointer(&b[0])))})
			}
		}
		if c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_CREDENTIALS && n >= unix.CmsgLen(unix.SizeofUcred) {
			u := (*unix.Ucred)(unsafe.Pointer(&oob[unix.CmsgLen(0)]))
			p.cred = &Credentials{PID: int(u.Pid), UID: int(u.Uid), GID: int(u.Gid)}
		}
		oob = oob[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(oob)):]
	}
	if len(p.buf) == 0 {
		// The peer's end. An empty packet reads the same and is never sent by a peer in good order.
		closeAll(p.cargo)
		return io.EOF
	}
	if h.Flags&unix.MSG_TRUNC != 0 {
		closeAll(p.cargo)
		return wireError("packet of more than %d bytes", maxPacket)
	}
	return nil
}

func (s *socket) drain() {
	s.draining.Store(true)
	s.f.SetReadDeadline(time.Unix(1, 0)) // wakes recv
}

func (s *socket) closeWrite() error {
	var err error
	if cerr := s.rc.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }); cerr != nil {
		return cerr
	}
	return os.NewSyscallError("shutdown", err)
}

func (s *socket) stop() {
	_ = s.rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
	s.drain()
	s.f.SetWriteDeadline(time.Unix(1, 0))
}

func (s *socket) close() error { return s.f.Close() }

func (s *socket) pair() (end, cargo, error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, noCargo, os.NewSyscallError("socketpair", err)
	}
	e, err := newSocket(os.NewFile(uintptr(p[0]), "fdipc data"))
	if err != nil {
		unix.Close(p[1])
		return nil, noCargo, err
	}
	return e, cargo{fd: p[1]}, nil
}

func (s *socket) adopt(g cargo) (end, error) {
	if err := unix.SetNonblock(g.fd, true); err != nil {
		g.close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	return newSocket(os.NewFile(uintptr(g.fd), "fdipc data"))
}

const tableSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

func (s *socket) newTable(slots int) (*table, cargo, error) {
	size := (tableWords + slots) * 8
	fd, err := unix.MemfdCreate("fdipc-claims", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, noCargo, os.NewSyscallError("memfd_create", err)
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, tableSeals)
	}
	if err != nil {
		unix.Close(fd)
		return nil, noCargo, os.NewSyscallError("memfd", err)
	}
	m, err := mapTable(fd, size)
	if err != nil {
		unix.Close(fd)
		return nil, noCargo, err
	}
	t := newTable(m)
	ownTable(t, m)
	return t, cargo{fd: fd}, nil
}

// adoptTable maps the peer's table. Its size cannot change any more: without that a peer could
// cut it off and kill us with SIGBUS.
func (s *socket) adoptTable(g cargo) (*table, error) {
	defer g.close()
	seals, err := unix.FcntlInt(uintptr(g.fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&tableSeals != tableSeals {
		return nil, wireError("claim table is not a sealed memfd")
	}
	var st unix.Stat_t
	if err := unix.Fstat(g.fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if st.Size < (tableWords+1)*8 || st.Size > (tableWords+maxCredits)*8 || st.Size%8 != 0 {
		return nil, wireError("claim table of %d bytes", st.Size)
	}
	m, err := mapTable(g.fd, int(st.Size))
	if err != nil {
		return nil, err
	}
	t := tableAt(m)
	ownTable(t, m)
	if *t.magic != tableMagic {
		return nil, wireError("claim table without its magic")
	}
	return t, nil
}

func mapTable(fd, size int) ([]uint64, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	return unsafe.Slice((*uint64)(unsafe.Pointer(&b[0])), size/8), nil
}

// ownTable unmaps m when nothing refers to t any more. Handles do, and may outlive their Conn.
func ownTable(t *table, m []uint64) {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&m[0])), len(m)*8)
	runtime.AddCleanup(t, func(b []byte) { _ = unix.Munmap(b) }, b)
}

func closeFD(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

func shutdownFD(fd int) {
	_, _, _ = syscall.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_RDWR, 0)
}
