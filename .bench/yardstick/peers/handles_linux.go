package peers

import (
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is a msghdr with room for descriptors, made once.
type message struct {
	hdr unix.Msghdr
	iov unix.Iovec
	buf [8]byte
	oob [unix.SizeofCmsghdr + 256*4]byte
}

func (m *message) fds() *[256]int32 { return (*[256]int32)(unsafe.Pointer(&m.oob[unix.CmsgLen(0)])) }

func (m *message) init(control int) {
	m.iov.Base = &m.buf[0]
	m.iov.SetLen(len(m.buf))
	m.hdr = unix.Msghdr{Iov: &m.iov, Control: &m.oob[0]}
	m.hdr.SetIovlen(1)
	m.hdr.SetControllen(control)
}

// PassHandles sends fresh duplicates of src over remote's other end for d, k a message, and closes
// its own. It is the least that Go can do: raw calls, nothing allocated, no claim.
func PassHandles(f *os.File, src, k int, d time.Duration) (n int, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var m message
	var errno syscall.Errno
	send := func(fd uintptr) bool {
		_, _, errno = syscall.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&m.hdr)), unix.MSG_NOSIGNAL)
		return errno != unix.EAGAIN
	}
	for end := time.Now().Add(d); n&1023 >= k || time.Now().Before(end); n += k {
		m.init(unix.CmsgSpace(k * 4))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&m.oob[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(k * 4))
		for i := range k {
			fd, _, _ := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(src), unix.F_DUPFD_CLOEXEC, 0)
			m.fds()[i] = int32(fd)
		}
		if err := rc.Write(send); err != nil {
			return n, err
		}
		if errno != 0 {
			return n, errno
		}
		for _, fd := range m.fds()[:k] {
			_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
		}
	}
	return n, nil
}

// takeHandles closes what PassHandles sends.
func takeHandles(f *os.File) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var m message
	var n uintptr
	var errno syscall.Errno
	recv := func(fd uintptr) bool {
		m.init(len(m.oob))
		n, _, errno = syscall.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&m.hdr)), unix.MSG_CMSG_CLOEXEC)
		return errno != unix.EAGAIN
	}
	for {
		if err := rc.Read(recv); err != nil {
			return err
		}
		if errno != 0 || n == 0 {
			return nil
		}
		h := (*unix.Cmsghdr)(unsafe.Pointer(&m.oob[0]))
		for _, fd := range m.fds()[:(int(h.Len)-unix.CmsgLen(0))/4] {
			_, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0)
		}
	}
}
