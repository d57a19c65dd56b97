//go:build linux && !amd64 && !arm64

package process

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// forkFlags of a child with a copy of this program's memory. To share the stack takes assembly.
const forkFlags = unix.CLONE_VFORK

// rawFork makes a system call that forks with forkFlags: it returns in the child, and when that has
// executed a program or ended, in this program.
//
//go:norace
//go:nosplit
func rawFork(trap, a1, a2, a3 uintptr) (r1 uintptr, err syscall.Errno) {
	if runtime.GOARCH == "s390x" && trap == unix.SYS_CLONE { // clone(2), "C library/kernel differences"
		a1, a2 = a2, a1
	}
	r1, _, err = syscall.RawSyscall6(trap, a1, a2, a3, 0, 0, 0)
	return r1, err
}
