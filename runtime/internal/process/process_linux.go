package process

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Process is a child process of this one, identified by its pidfd: no other process can get its
// number until it is reaped. Its methods may be called by any goroutine.
type Process struct {
	pid  int
	done chan struct{} // closed once reaped; exit is set before
	exit Exit

	lacks []string // see Lacks

	file *os.File // owns fd, which is in the poller
	halt halt     // of wait

	mu     sync.Mutex // held during each signal, so that it uses no closed fd and no number of a reaped process
	fd     int        // the pidfd, -1 once closed; not from file.Fd, which would make it blocking
	reaped bool
}

// hold takes ownership of pidfd and starts waiting for the process.
func hold(pid, pidfd int) (*Process, error) {
	// Non-blocking, so that waiting for the end costs a poller entry, not a
	// thread: a pidfd is readable when its process has ended (pidfd_open(2)).
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, errors.Join(os.NewSyscallError("fcntl", err), discard(pid))
	}
	// Check now that waitid works: a failure later would look like the end of the process.
	if e, _ := reap(pidfd, unix.WNOWAIT); e.Lost != nil && !errors.Is(e.Lost, unix.ECHILD) {
		unix.Close(pidfd)
		return nil, errors.Join(fmt.Errorf("%w: %s", e.Lost, needsPidfd), discard(pid))
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

// discard kills and reaps a child that cannot be kept. Its number is safe to use: the child is not
// reaped yet.
func discard(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		return os.NewSyscallError("kill", err)
	}
	for {
		_, err := unix.Wait4(pid, nil, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("wait4", err)
		}
	}
}

func (p *Process) wait(rc syscall.RawConn) {
	defer close(p.done)
	ended := func(fd uintptr) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !groupsByPidfd() {
			// The group's number is ours until its leader is reaped, and must not be used after
			// that. So kill the rest of the group now.
			if _, ended := reap(int(fd), unix.WNOWAIT); !ended {
				return false
			}
			_ = unix.Kill(-p.pid, unix.SIGKILL) // it has at least its leader
		}
		var ended bool
		p.exit, ended = reap(int(fd), 0)
		p.reaped = ended
		return ended
	}
	for {
		if halted := p.halt.now.Load(); halted != nil {
			halted.wait(nil)
		}
		err := rc.Read(ended)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue // a halt
		}
		if err != nil { // the poller refused the pidfd, which is a bug here
			p.exit.Lost = err
		}
		return
	}
}

// siginfo is siginfo_t, read by offset: si_signo, si_errno, si_code, and after
// the alignment of the union si_pid, si_uid, si_status (sigaction(2)).
type siginfo [128]byte

const union = 12 + 4*(unsafe.Sizeof(uintptr(0))/8)

func (i *siginfo) code() int32   { return *(*int32)(unsafe.Pointer(&i[8])) }
func (i *siginfo) pid() int32    { return *(*int32)(unsafe.Pointer(&i[union])) }
func (i *siginfo) status() int32 { return *(*int32)(unsafe.Pointer(&i[union+8])) }

// Values of si_code of a child.
const (
	cldExited = 1
	cldDumped = 3
)

// reap reports whether the process has ended, and reaps it if so; with WNOWAIT in flags it stays a
// zombie.
func reap(pidfd int, flags uintptr) (Exit, bool) { return reapBy(unix.P_PIDFD, pidfd, flags) }

// reapBy is reap for a process with an id of type idType (waitid(2)).
func reapBy(idType, id int, flags uintptr) (Exit, bool) {
	var (
		info  siginfo
		usage unix.Rusage
	)
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, uintptr(idType), uintptr(id), uintptr(unsafe.Pointer(&info)),
			unix.WEXITED|unix.WNOHANG|flags, uintptr(unsafe.Pointer(&usage)), 0)
		switch errno {
		case 0:
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return Exit{}, false
		default: // ECHILD: another part of this program reaped it
			return Exit{Lost: os.NewSyscallError("waitid", errno)}, true
		}
		break
	}
	if info.pid() == 0 { // no child has ended yet
		return Exit{}, false
	}
	e := Exit{
		UserTime: timeval(usage.Utime), SystemTime: timeval(usage.Stime),
		MaxRSS: int64(usage.Maxrss) << 10,
	}
	switch code := info.code(); code {
	case cldExited:
		e.Code = int(info.status())
	default:
		e.Code, e.Signal, e.Core = -1, syscall.Signal(info.status()), code == cldDumped
	}
	return e, true
}

func timeval(t unix.Timeval) time.Duration { return time.Duration(t.Nano()) }

// PID returns the process's number, for display. It may be another process's once Done is closed.
func (p *Process) PID() int { return p.pid }

// Lacks returns what the walls of the process lack, by the field, if they need not be whole.
func (p *Process) Lacks() []string { return p.lacks }

// Done returns a channel that is closed when the process has ended and is reaped. Other processes
// of its group may live: see [Process.GroupAlive].
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit returns how the process ended. Call it after Done.
func (p *Process) Exit() Exit { return p.exit }

// Signal sends sig to the process only. It does nothing if the process has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.send(sig, 0) }

// SignalGroup sends sig to the process group of the process, whether its leader lives or not. It
// does nothing if the group has ended. It cannot reach another group of the same number: from Linux
// 6.9 on, the pidfd identifies the group; before that, the rest of a group is killed before its
// leader is reaped.
func (p *Process) SignalGroup(sig syscall.Signal) error {
	return p.send(sig, unix.PIDFD_SIGNAL_PROCESS_GROUP)
}

func (p *Process) send(sig syscall.Signal, flags int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd < 0 {
		return nil
	}
	var err error
	switch {
	case flags == 0 || groupsByPidfd():
		err = os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(p.fd, sig, nil, flags))
	case !p.reaped:
		err = os.NewSyscallError("kill", unix.Kill(-p.pid, sig))
	}
	if flags == 0 && !p.reaped && err != nil && !errors.Is(err, unix.ESRCH) {
		// A seccomp filter may have refused it. The process keeps its number until it is reaped.
		err = os.NewSyscallError("kill", unix.Kill(p.pid, sig))
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// groupsByPidfd reports whether a pidfd can stand for a process group.
var groupsByPidfd = sync.OnceValue(func() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	err = unix.PidfdSendSignal(fd, 0, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	return err == nil || errors.Is(err, unix.ESRCH) // EINVAL: an unknown flag
})

// GroupAlive reports, after Done, whether a process of the group still lives. Zombies do not count.
func (p *Process) GroupAlive() bool {
	p.mu.Lock()
	fd := p.fd
	gone := fd < 0 || !groupsByPidfd() || unix.PidfdSendSignal(fd, 0, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP) != nil
	p.mu.Unlock()
	return !gone && groupHasLiving(p.pid)
}

// groupHasLiving reports whether the group has a process that is no zombie. A zombie that is not
// reaped may stay in its group for long.
func groupHasLiving(pgid int) bool {
	proc, err := os.Open("/proc")
	if err != nil {
		return true
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return true
	}
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		f, _, _ := statFields("/proc/" + name) // state ppid pgrp …; none once it has ended
		if len(f) > 2 && f[0] != "Z" && f[0] != "X" && f[2] == strconv.Itoa(pgid) {
			return true
		}
	}
	return false
}

// Close closes the pidfd; after that the group cannot be signalled. Call it once, after Done.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fd = -1
	return p.file.Close()
}
