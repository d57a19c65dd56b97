//go:build linux && !amd64 && !arm64

package process

import "syscall"

func rawVfork(_, _, _, _ uintptr) (r1, err uintptr) { return 0, uintptr(syscall.ENOSYS) }
