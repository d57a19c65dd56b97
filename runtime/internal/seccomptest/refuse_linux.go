// Package seccomptest has system calls refused to a program of a test, as the seccomp
// profile of a container does.
package seccomptest

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Call is a system call that is refused.
type Call struct {
	Number uint32

	// Bits, if not 0, has the call refused only where its argument of number Arg has one of
	// these bits; with None, only where it has none of them.
	Arg  uint32
	Bits uint32
	None bool
}

// Refuse has all threads of this program, and what it starts, get errno e from calls, from
// now on and for good. It panics when that cannot be had.
func Refuse(e syscall.Errno, calls ...Call) {
	statement := func(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
	jump := func(code uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | code, K: k, Jt: yes, Jf: no}
	}
	const load = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	var filter []unix.SockFilter
	for _, c := range calls {
		filter = append(filter, statement(load, 0)) // seccomp_data.nr
		refuse := statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(e))
		switch {
		case c.Bits == 0:
			filter = append(filter, jump(unix.BPF_JEQ, c.Number, 0, 1), refuse)
		default:
			look := jump(unix.BPF_JSET, c.Bits, 0, 1)
			if c.None {
				look.Jt, look.Jf = 1, 0
			}
			filter = append(filter, jump(unix.BPF_JEQ, c.Number, 0, 3), statement(load, 16+8*c.Arg), look, refuse)
		}
	}
	filter = append(filter, statement(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW))
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog))); errno != 0 {
		panic(errno)
	}
}
