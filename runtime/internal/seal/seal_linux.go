package seal

import (
	"runtime"
	"syscall"
	"unsafe"
)

func init() {
	how, ok := syscall.Getenv(Var)
	if !ok {
		return
	}
	_ = syscall.Unsetenv(Var) // fails on an empty name only
	best := len(how) > 0 && how[len(how)-1:] == Best
	if best {
		how = how[:len(how)-1]
	}
	const (
		load, equal, result       = 0x20, 0x15, 0x06 // of the number; jump; return
		trap, errno, allow        = 0x00030000, 0x00050000 | uintptr(syscall.EPERM), 0x7fff0000
		setModeFilter, allThreads = 1, 1
	)
	number, execveat := uintptr(317), uint32(322)
	if runtime.GOARCH == "arm64" {
		number, execveat = 277, 281
	}
	deny := uint32(trap)
	if how == Fail {
		deny = uint32(errno)
	}
	filter := []syscall.SockFilter{
		{Code: load},
		{Code: equal, K: syscall.SYS_EXECVE, Jt: 1},
		{Code: equal, K: execveat, Jf: 1},
		{Code: result, K: deny},
		{Code: result, K: allow},
	}
	prog := syscall.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// A positive result is a thread that could not take the filter; then no thread has it.
	if r, _, e := syscall.RawSyscall(number, setModeFilter, allThreads, uintptr(unsafe.Pointer(&prog))); (r != 0 || e != 0) && !best {
		_, _ = syscall.Write(2, []byte("fatal: Sandbox.Syscalls: seccomp with SECCOMP_FILTER_FLAG_TSYNC: "+e.Error()+"\n"))
		syscall.Exit(1)
	}
}
