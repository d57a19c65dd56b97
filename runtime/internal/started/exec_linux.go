package started

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// execPath returns the path that was passed to execve(2); "" if the kernel does not say. It may be
// relative, or that of a descriptor.
func execPath() string {
	const atExecfn = 31 // AT_EXECFN of getauxval(3)
	aux, err := unix.Auxv()
	if err != nil {
		return ""
	}
	for _, kv := range aux {
		if kv[0] == atExecfn && kv[1] != 0 {
			return unix.BytePtrToString(*(**byte)(unsafe.Pointer(&kv[1]))) // at the bottom of the stack, for ever
		}
	}
	return ""
}

// ownFile returns a path that leads to this program's file, even if it was removed.
func ownFile() string { return "/proc/self/exe" }
