//go:build linux && (amd64 || arm64)

package process

// rawVfork makes a system call with CLONE_VM and CLONE_VFORK: it returns in the child, and when
// that has executed a program or ended, in this program.
//
//go:noescape
func rawVfork(trap, a1, a2, a3 uintptr) (r1, err uintptr)
