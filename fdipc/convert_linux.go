package fdipc

import (
	"os"

	"golang.org/x/sys/unix"
)

// blockingFile returns a file over a duplicate of the descriptor, which stays out of the runtime's
// poller: a file system that the peer runs could keep the poller waiting, in a raw call. os.NewFile
// alone would ask the descriptor whether it is non-blocking, and the peer can change that at any
// moment. The descriptor itself is closed.
func (h *Handle) blockingFile() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	f := os.NewFile(uintptr(fd), h.Name())
	if err := unix.Dup3(int(h.fd), fd, unix.O_CLOEXEC); err != nil {
		f.Close()
		return nil, os.NewSyscallError("dup3", err)
	}
	h.from.closers.Close(int(h.fd))
	return f, nil
}
