package memfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// Sealed returns a file in memory that holds b and cannot be changed. It is for data that is too
// long for a frame, written once and read by many processes. The caller owns the file.
func Sealed(name string, b []byte) (*os.File, error) {
	fd, err := fdipc.Memory(name)
	if err != nil {
		return nil, fmt.Errorf("coppice: %s of %d bytes: %w", name, len(b), err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err = f.WriteAt(b, 0); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
		err = os.NewSyscallError("fcntl", err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("coppice: %s of %d bytes: %w", name, len(b), err), f.Close())
	}
	return f, nil
}

// Map returns the first n bytes of a file of Sealed. Processes that have the file share its memory;
// a process that writes to it changes only its own copy. The memory is never released. The caller
// keeps f.
func Map(f *os.File, n int) ([]byte, error) {
	b, err := unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("coppice: %s of %d bytes: %w", f.Name(), n, os.NewSyscallError("mmap", err))
	}
	return b, nil
}

// View is Map of a file that another process says is one of Sealed, with an error if it is not, for
// memory that is released by Unmap.
func View(f *os.File, n int) ([]byte, error) {
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_WRITE
	got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || got&seals != seals {
		return nil, fmt.Errorf("coppice: %s: not sealed: %w", f.Name(), errors.Join(err, errors.ErrUnsupported))
	}
	if i, err := f.Stat(); err != nil || i.Size() < int64(n) {
		return nil, errors.Join(fmt.Errorf("coppice: %s is shorter than %d bytes", f.Name(), n), err)
	}
	return Map(f, n)
}

// Unmap releases the memory of View, which must not be used any more.
func Unmap(b []byte) { _ = unix.Munmap(b) } // it is mapped

// Duplicate returns another descriptor of f, owned by the caller.
func Duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("coppice: %s: %w", f.Name(), os.NewSyscallError("fcntl", err))
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
