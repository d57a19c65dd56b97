package fdipc

import (
	"io"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// packetIO is what one system call needs, made once for each packet.
type packetIO struct {
	hdr   unix.Msghdr
	iov   unix.Iovec
	oob   [unix.SizeofCmsghdr + maxFDs*4 + 4]byte // maxFDs descriptors
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
	if n := len(p.attachments); n > 0 {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&io.oob[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(n * 4))
		fds := unsafe.Slice((*int32)(unsafe.Pointer(&io.oob[unix.CmsgLen(0)])), n)
		for i, g := range p.attachments {
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
	p.unload()
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

// raceEdge tells the race detector what package syscall tells it of read and write: what went
// before a send happened before what follows its receipt.
var raceEdge atomic.Uint32

// parse takes over what recvmsg brought. Descriptors are in the packet's attachments, also on an
// error.
func (p *packet) parse() error {
	h := &p.io.hdr
	p.buf = p.buf[:p.io.n]
	p.attachments = p.attachments[:0]
	p.truncated = h.Flags&unix.MSG_CTRUNC != 0
	oob := p.io.oob[:h.Controllen]
	for len(oob) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		n := int(c.Len)
		if n < unix.SizeofCmsghdr || n > len(oob) {
			break
		}
		if c.Level == unix.SOL_SOCKET && c.Type == unix.SCM_RIGHTS {
			for b := oob[unix.CmsgLen(0):n]; len(b) >= 4; b = b[4:] {
				p.attachments = append(p.attachments, attachment{fd: int(*(*int32)(unsafe.Pointer(&b[0])))})
			}
		}
		oob = oob[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(oob)):]
	}
	if len(p.buf) == 0 {
		// The peer's end. An empty packet reads the same and is never sent by a peer in good order.
		return io.EOF
	}
	if h.Flags&unix.MSG_TRUNC != 0 {
		return wireError("packet of more than %d bytes", maxPacket)
	}
	return nil
}
