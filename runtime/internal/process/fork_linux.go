package process

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// launch forks and execs cmd, on the launcher's thread. The child makes its settings itself, by raw
// calls between fork and exec. lacks are the walls that a child of BestEffort goes without.
func launch(cmd Command, path string, fds []uintptr) (pid, pidfd int, lacks []string, err error) {
	if err := closeAllOnExec(); err != nil {
		return 0, 0, nil, err
	}
	c := cmd.calls(path, fds)
	child, pidfd, errnos, err := fork(cmd.Cgroup, c.calls)
	runtime.KeepAlive(c)
	runtime.KeepAlive(cmd)
	if err != nil {
		return 0, 0, nil, err
	}
	again := false
	for i, call := range c.calls {
		switch {
		case errnos[i] == 0 || call.error == nil:
		case call.spare != 0:
			lacks = append(lacks, call.error(errnos[i]).Error())
		case i < len(c.calls)-1 && slices.Contains(shortages, errnos[i]): // no option is to blame
			err = errnos[i]
		default:
			err, again = call.error(errnos[i]), call.without
		}
	}
	if err == nil && pidfd < 0 {
		err = withoutPidfd()
	}
	if again {
		w := *cmd.Wall
		w.Rules.NoNetwork, cmd.Wall = false, &w
		lack := err.Error()
		if err := abandon(child, pidfd, nil); err != nil {
			return 0, 0, nil, err
		}
		pid, pidfd, lacks, err = launch(cmd, path, fds)
		return pid, pidfd, append(lacks, lack), err
	}
	if err != nil {
		err = abandon(child, pidfd, err)
	}
	return child, pidfd, lacks, err
}

// shortages are errors for which a later start may succeed.
var shortages = []syscall.Errno{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE}

// A forkCall is a system call that forks. What args point to is on the heap, and held.
type forkCall struct {
	number uintptr
	args   [3]uintptr
	held   any
}

// forkInto returns the call that forks into cgroup, unless that is nil, and has the kernel put the
// pidfd into fd, unless that is nil.
func forkInto(cgroup *os.File, fd *int32) *forkCall {
	flags := uintptr(forkFlags)
	if fd != nil {
		flags |= unix.CLONE_PIDFD
	}
	if cgroup == nil {
		return &forkCall{unix.SYS_CLONE, [3]uintptr{flags | uintptr(unix.SIGCHLD), 0, uintptr(unsafe.Pointer(fd))}, fd}
	}
	args := &struct { // clone_args of clone3(2)
		flags, pidFD, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64
	}{
		flags: uint64(flags) | unix.CLONE_INTO_CGROUP, pidFD: uint64(uintptr(unsafe.Pointer(fd))),
		exitSignal: uint64(unix.SIGCHLD), cgroup: uint64(cgroup.Fd()),
	}
	return &forkCall{unix.SYS_CLONE3, [3]uintptr{uintptr(unsafe.Pointer(args)), unsafe.Sizeof(*args)}, []any{args, fd}}
}

// fork forks a child that makes calls, and returns when it has executed a program, with the last of
// them, or has ended. errnos are those of the calls. The pidfd is -1 if the kernel gives none.
func fork(cgroup *os.File, calls []childCall) (pid, pidfd int, errnos []syscall.Errno, err error) {
	size := (len(calls) + 1) * int(unsafe.Sizeof(syscall.Errno(0)))
	shared, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return 0, 0, nil, os.NewSyscallError("mmap", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("munmap", unix.Munmap(shared))) }()
	told := unsafe.Slice((*syscall.Errno)(unsafe.Pointer(&shared[0])), len(calls))

	var all, before unix.Sigset_t // no handler may run in the child
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return 0, 0, nil, os.NewSyscallError("rt_sigprocmask", err)
	}
	fd := new(int32) // the kernel's
	*fd = -1
	syscall.ForkLock.Lock()
	f, over := forkInto(cgroup, fd), goOn(fd)
	child, errno := makeCalls(f, calls, told)
	over()
	syscall.ForkLock.Unlock()
	if errno != 0 {
		*fd = -1 // the kernel may have written it, and closed it
		err = forkError(errno, cgroup)
	}
	err = errors.Join(err, os.NewSyscallError("rt_sigprocmask", unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)))
	runtime.KeepAlive(f)
	runtime.KeepAlive(cgroup)
	return int(child), int(atomic.LoadInt32(fd)), slices.Clone(told), err
}

// forkError returns the error of a fork that failed.
func forkError(errno syscall.Errno, cgroup *os.File) error {
	switch {
	case errno == syscall.EAGAIN:
		return tooMany(errno)
	case slices.Contains(shortages, errno):
		return errno
	case cgroup != nil:
		return option("Cgroup "+cgroup.Name(), "clone3", needsCgroup)(errno)
	}
	if child, e := makeCalls(forkInto(nil, nil), nil, nil); e == 0 {
		return errors.Join(call("clone with CLONE_PIDFD", needsPidfd)(errno), discard(int(child)))
	}
	return call("clone or execve", needsClone)(errno)
}

// lastResult, as the first argument, is the result of the call before the last one or the last one:
// of the latest open.
const lastResult = ^uintptr(0) >> 1

// makeCalls forks, and in the child makes calls, of which the last executes the program. It returns
// when the child has done so or has ended, which it does after the first call that fails. errnos is
// memory that the two share, and gets what the calls return. The child may share all memory and
// this stack, while this thread waits: so it makes raw calls only, and may not grow the stack.
//
//go:noinline
//go:norace
//go:nosplit
func makeCalls(f *forkCall, calls []childCall, errnos []syscall.Errno) (pid uintptr, errno syscall.Errno) {
	entersyscall() // so that the other threads go on, the collector's too, however long the child takes
	pid, errno = rawFork(f.number, f.args[0], f.args[1], f.args[2])
	if pid != 0 || errno != 0 {
		exitsyscall()
		return pid, errno
	}
	var opened uintptr
	for i := 0; i < len(calls); i++ {
		c := &calls[i]
		first := c.args[0]
		if first == lastResult {
			first = opened
		}
		r, _, e := syscall.RawSyscall6(c.number, first, c.args[1], c.args[2], c.args[3], c.args[4], 0)
		if e == 0 && c.want != 0 && r != c.want {
			e = syscall.ESRCH
		}
		if c.number == unix.SYS_OPENAT {
			opened = r
		}
		if c.puts != nil {
			*c.puts = uint32(r)
		}
		if c.digits != nil {
			n := 0
			for rest := r; rest != 0; rest /= 10 {
				n++
			}
			for c.digits[n] = 0; r != 0; r /= 10 {
				n--
				c.digits[n] = byte('0' + r%10)
			}
		}
		if e != 0 {
			errnos[i] = e
			if c.spare == 0 {
				break
			}
			i += c.spare - 1
		}
	}
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
	}
}

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// goOn has the child of a fork, whose pidfd the kernel puts into fd, continued again and again
// until over is called. Once the child has its user, another process of that user may stop it
// (SIGSTOP), and this program would start no further process.
func goOn(fd *int32) (over func()) {
	const pause = 50 * time.Millisecond
	var mu sync.Mutex // held while the child is continued: after over there is no further signal
	ended := false
	var t *time.Timer
	mu.Lock()
	defer mu.Unlock()
	t = time.AfterFunc(pause, func() {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		if pidfd := atomic.LoadInt32(fd); pidfd >= 0 {
			_ = unix.PidfdSendSignal(int(pidfd), unix.SIGCONT, nil, 0) // it may have ended
		}
		t.Reset(pause)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
		t.Stop()
	}
}
