package process

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// OutputPipe returns a pipe for a child's output. The read end uses the poller. The write end
// blocks, as a program may expect of its standard output. The caller owns both.
func OutputPipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(p[0]), "output"), os.NewFile(uintptr(p[1]), "output"), nil
}

// untilDeadline reads a pipe until its read deadline, and then, without waiting, the bytes that are
// in the pipe at that time. So a reader that is late, because it waited to pass on earlier lines,
// still gets them. It is for one goroutine.
type untilDeadline struct {
	r      *os.File
	ending *atomic.Bool // before it is set, a deadline is that of a halt
	late   bool
	left   int // bytes still to read, after the deadline
}

func (u *untilDeadline) Read(b []byte) (n int, err error) {
	if !u.late {
		if n, err = u.r.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if !u.ending.Load() {
			return 0, errHalted
		}
	}
	rc, err := u.r.SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := rc.Control(func(fd uintptr) { // Read would check the deadline first
		if !u.late {
			u.late = true
			u.left, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) // FIONREAD, see pipe(7)
		}
		if err == nil && u.left > 0 {
			n, err = unix.Read(int(fd), b[:min(len(b), u.left)]) // it does not block, so no signal interrupts it
		}
	})
	if err = errors.Join(cerr, err); err != nil || n <= 0 {
		return 0, errors.Join(os.ErrDeadlineExceeded, err)
	}
	u.left -= n
	return n, nil
}
