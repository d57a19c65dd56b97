package process

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Process is a child process of this one, known by its pidfd: its number
// cannot come to mean another process while we hold it. Its methods may be called
// by any goroutine.
type Process struct {
	pid  int
	done chan struct{} // closed once reaped; exit is set before
	exit Exit

	file *os.File // owns fd, and has it in the poller

	mu     sync.Mutex // held across each signal, so that none meets a reaped pid
	fd     int        // the pidfd; not from file.Fd, which would make it blocking
	reaped bool
}

// hold takes ownership of pidfd and waits for the process from then on.
func hold(pid, pidfd int) (*Process, error) {
	// Non-blocking, so that waiting for the end costs a poller entry, not a
	// thread: a pidfd is readable when its process has ended (pidfd_open(2)).
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, errors.Join(os.NewSyscallError("fcntl", err), discard(pid))
	}
	p := &Process{pid: pid, done: make(chan struct{}), fd: pidfd}
	p.file = os.NewFile(uintptr(pidfd), fmt.Sprintf("pid %d", pid))
	rc, err := p.file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, discard(pid), p.file.Close())
	}
	go p.wait(rc) // ends when the process does
	return p, nil
}

// discard kills and reaps a child that cannot be kept. Its number is safe: nobody
// has reaped it yet.
func discard(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return os.NewSyscallError("kill", err)
	}
	_, err := unix.Wait4(pid, nil, 0, nil)
	return os.NewSyscallError("wait4", err)
}

func (p *Process) wait(rc syscall.RawConn) {
	defer close(p.done)
	err := rc.Read(func(fd uintptr) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		var ended bool
		p.exit, ended = reap(int(fd))
		p.reaped = ended
		return ended
	})
	if err != nil { // the poller refused the pidfd: a broken invariant of ours
		p.exit.Lost = err
	}
	p.file.Close()
}

// reap asks whether the process has ended and takes its status if so.
func reap(pidfd int) (Exit, bool) {
	// siginfo_t, read by offset: si_signo, si_errno, si_code, and after the
	// alignment of the union si_pid, si_uid, si_status (sigaction(2)).
	const union = 12 + 4*(unsafe.Sizeof(uintptr(0))/8)
	var (
		info  [128]byte
		usage unix.Rusage
	)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(pidfd), uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG, uintptr(unsafe.Pointer(&usage)), 0)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return Exit{}, false
		default: // ECHILD: somebody else in this program reaped it
			return Exit{Lost: os.NewSyscallError("waitid", errno)}, true
		}
		break
	}
	field := func(at uintptr) int32 { return *(*int32)(unsafe.Pointer(&info[at])) }
	if field(union) == 0 { // si_pid: nobody has ended yet
		return Exit{}, false
	}
	e := Exit{
		UserTime: timeval(usage.Utime), SystemTime: timeval(usage.Stime),
		MaxRSS: int64(usage.Maxrss) << 10,
	}
	status := int(field(union + 8))
	const cldExited, cldDumped = 1, 3
	switch code := field(8); code {
	case cldExited:
		e.Code = status
	default:
		e.Code, e.Signal, e.Core = -1, syscall.Signal(status), code == cldDumped
	}
	return e, true
}

// PID is the process's number, for people. It may be another's once Done is closed.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended and is reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit is how it ended, after Done.
func (p *Process) Exit() Exit { return p.exit }

// SignalGroup sends sig to the process group that the process leads; to a group
// that has ended it does nothing. The group's number is safe to use as long as its
// leader is not reaped.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if err := unix.Kill(-p.pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
		return os.NewSyscallError("kill", err)
	}
	return nil
}

func timeval(t unix.Timeval) time.Duration { return time.Duration(t.Nano()) }
