package lazyconn

import (
	"cmp"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// CopyFrom writes what it reads from r until its end, for ReadFrom. A regular file is sent by
// sendfile(2), and what a connection of package net receives by splice(2), where the kernel can.
func CopyFrom(c *Conn, r io.Reader) (int64, error) {
	src, remain := r, int64(1<<62)
	limited, _ := r.(*io.LimitedReader)
	if limited != nil {
		src, remain = limited.R, limited.N
	}
	if remain <= 0 {
		return 0, nil
	}
	var n int64
	if f, ok := src.(*os.File); ok && isRegular(f) {
		var err error
		if n, err = c.sendfile(f, remain); n > 0 || err != nil {
			if limited != nil {
				limited.N -= n
			}
			return n, err
		}
	}
	if _, raw := src.(syscall.Conn); raw {
		if _, conn := src.(net.Conn); conn {
			return c.splice(r)
		}
	}
	return io.Copy(justWriter{c}, r)
}

func isRegular(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode().IsRegular()
}

type justWriter struct{ io.Writer }

type justReader struct{ io.Reader }

// CopyTo writes what it reads from c to w until the end, for WriteTo.
func CopyTo(c *Conn, w io.Writer) (int64, error) { return io.Copy(w, justReader{c}) }

// maxSendfile is the most that one sendfile(2) is asked for, as package net does.
const maxSendfile = 4 << 20

// sendfile sends at most remain bytes of a file, from its offset on. It returns 0 and no error if
// the kernel cannot.
func (c *Conn) sendfile(src *os.File, remain int64) (done int64, err error) {
	to, leave, err := c.beginWrite()
	if err != nil {
		return 0, err
	}
	defer leave()
	in, err := src.SyscallConn()
	if err != nil {
		return 0, nil
	}
	out, err := to.SyscallConn()
	if err != nil {
		return 0, c.opError("write", err)
	}
	var failed error
	ierr := in.Control(func(infd uintptr) {
		err = out.Write(func(fd uintptr) (ready bool) {
			for remain > 0 {
				n, e := unix.Sendfile(int(fd), int(infd), nil, int(min(remain, maxSendfile)))
				if n > 0 {
					done, remain = done+int64(n), remain-int64(n)
					continue
				}
				switch e {
				case unix.EINTR:
					continue
				case unix.EAGAIN:
					return false
				}
				failed = e // nil at the end of the file
				return true
			}
			return true
		})
	})
	switch {
	case ierr != nil || done == 0 && (failed == unix.EINVAL || failed == unix.ENOSYS || failed == unix.EOPNOTSUPP || failed == unix.EPERM):
		return 0, nil
	case failed != nil:
		err = os.NewSyscallError("sendfile", failed)
	}
	if err != nil {
		return done, c.opError("write", err)
	}
	return done, nil
}

// splice is CopyFrom for a connection.
func (c *Conn) splice(r io.Reader) (int64, error) {
	to, leave, err := c.beginWrite()
	if err != nil {
		return 0, err
	}
	defer leave()
	n, err := to.ReadFrom(r)
	if _, here := err.(*os.PathError); here {
		err = c.opError("write", err)
	}
	return n, err
}

// beginWrite begins a write that may wait; leave ends it.
func (c *Conn) beginWrite() (to *os.File, leave func(), err error) {
	if !c.enter() {
		return nil, nil, c.opError("write", net.ErrClosed)
	}
	c.writing.Lock()
	leave = func() {
		c.writing.Unlock()
		c.leave()
	}
	if to, err = c.poller(); err != nil {
		leave()
		return nil, nil, c.opError("write", err)
	}
	return to, leave, nil
}

// RecvMsg is recvmsg(2), which waits for a message.
func RecvMsg(c *Conn, b, oob []byte) (n, oobn, flags int, err error) {
	if !c.enter() {
		return 0, 0, 0, c.opError("read", net.ErrClosed)
	}
	defer c.leave()
	f, err := c.poller()
	if err != nil {
		return 0, 0, 0, c.opError("read", err)
	}
	raw, err := f.SyscallConn()
	if err == nil {
		err = whenReady(raw.Read, "recvmsg", func(fd int) (err error) {
			n, oobn, flags, _, err = unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
			return err
		})
	}
	if err != nil {
		return 0, 0, 0, c.opError("read", err)
	}
	if n == 0 && oobn == 0 && len(b) > 0 {
		return 0, 0, flags, io.EOF
	}
	return n, oobn, flags, nil
}

// SendMsg is sendmsg(2), which waits for room.
func SendMsg(c *Conn, b, oob []byte) (n int, err error) {
	f, leave, err := c.beginWrite()
	if err != nil {
		return 0, err
	}
	defer leave()
	raw, err := f.SyscallConn()
	if err == nil {
		err = whenReady(raw.Write, "sendmsg", func(fd int) (err error) {
			n, err = unix.SendmsgN(fd, b, oob, nil, unix.MSG_NOSIGNAL)
			return err
		})
	}
	if err != nil {
		return 0, c.opError("write", err)
	}
	return n, nil
}

// whenReady makes a system call as soon as it need not wait. wait is of a syscall.RawConn.
func whenReady(wait func(func(fd uintptr) bool) error, name string, call func(fd int) error) error {
	var failed error
	err := wait(func(fd uintptr) bool {
		for failed = call(int(fd)); failed == unix.EINTR; failed = call(int(fd)) {
		}
		return failed != unix.EAGAIN
	})
	return cmp.Or(err, os.NewSyscallError(name, failed))
}

// Error returns err as package net makes it of an operation of c.
func Error(c *Conn, op string, err error) error { return c.opError(op, err) }
