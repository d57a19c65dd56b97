package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// highFD is above every number that a child is given. An [Executable] is held up
// there because the child resolves /proc/self/fd/N after its own descriptors
// were moved into place.
const highFD = 64

// An Executable is a program file held open, so that a later start runs the same
// code whatever happens to the path.
type Executable struct {
	file *os.File
}

// Self holds the program that this process runs. The caller owns it.
func Self() (*Executable, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("hold the executable: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, highFD)
	if err != nil {
		return nil, fmt.Errorf("hold the executable: %w", os.NewSyscallError("fcntl", err))
	}
	return &Executable{os.NewFile(uintptr(fd), f.Name())}, nil
}

// Path is what a child execs ([Command.Path]). It is valid until Close.
func (e *Executable) Path() string { return fmt.Sprintf("/proc/self/fd/%d", e.file.Fd()) }

// Close lets go of the file. What was started from it goes on.
func (e *Executable) Close() error { return e.file.Close() }
