//go:build linux && (amd64 || arm64)

package process

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// forkFlags of a child that shares this program's memory, as that of syscall.ForkExec does: the
// fork takes no longer the more memory there is.
const forkFlags = unix.CLONE_VFORK | unix.CLONE_VM

// rawFork makes a system call that forks with forkFlags: it returns in the child, and when that has
// executed a program or ended, in this program.
//
//go:noescape
func rawFork(trap, a1, a2, a3 uintptr) (r1 uintptr, err syscall.Errno)
