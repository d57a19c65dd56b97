package process

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// callAs makes a system call as another user, by a fork of this program that makes no other call
// and ends. To change the limits and the priority of a process of another user takes
// CAP_SYS_RESOURCE and CAP_SYS_NICE, which root of a container lacks. A process may lower those of
// its own user without. Only the launcher's thread may call callAs. What args point to must stay
// where it is.
func callAs(c *syscall.Credential, name string, call uintptr, args ...uintptr) error {
	var all, before unix.Sigset_t // no handler may run in the fork
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return os.NewSyscallError("rt_sigprocmask", err)
	}
	var a [4]uintptr
	copy(a[:], args)
	child, errno := forkToCall(uintptr(c.Uid), uintptr(c.Gid), call, &a)
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		return os.NewSyscallError("rt_sigprocmask", err)
	}
	if errno != 0 {
		return os.NewSyscallError("clone", errno)
	}
	var status unix.WaitStatus
	for {
		// Only __WALL sees a child without a signal at its end: no other part of the program takes
		// it.
		_, err := unix.Wait4(int(child), &status, unix.WALL, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("wait4", err)
		}
		break
	}
	switch {
	case !status.Exited(): // another process of that user has killed it
		return os.NewSyscallError(name, unix.EINTR)
	case status.ExitStatus() != 0:
		return os.NewSyscallError(name, syscall.Errno(status.ExitStatus()))
	}
	return nil
}

// forkToCall returns the number of the fork. In the fork it does not return: there is one thread
// and no scheduler, so it makes raw calls only, and may not grow its stack.
//
//go:norace
//go:nosplit
func forkToCall(uid, gid, call uintptr, a *[4]uintptr) (child uintptr, errno syscall.Errno) {
	child, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, 0, 0, 0, 0, 0, 0)
	if errno != 0 || child != 0 {
		return child, errno
	}
	_, _, errno = syscall.RawSyscall(unix.SYS_SETGID, gid, 0, 0)
	if errno == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_SETUID, uid, 0, 0)
	}
	if errno == 0 {
		_, _, errno = syscall.RawSyscall6(call, a[0], a[1], a[2], a[3], 0, 0)
	}
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
}
