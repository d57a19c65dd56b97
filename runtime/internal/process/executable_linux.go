package process

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// highFD is above every number that a child is given ([MaxFiles]). An
// [Executable] is held up there because the child resolves /proc/self/fd/N after
// its own descriptors were moved into place.
const highFD = 64

// An Executable is a program file held open, so that a later start runs the same
// code whatever happens to the path.
type Executable struct {
	file *os.File
	fd   int // of file
}

// Self holds the program that this process runs. The caller owns it.
func Self() (*Executable, error) { return OpenExecutable("/proc/self/exe") }

// OpenExecutable holds the program at path. The caller owns it.
func OpenExecutable(path string) (*Executable, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrPermission) { // mode 0711: it may be run, not read
		f, err = os.OpenFile(path, unix.O_PATH, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("hold the executable: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, highFD)
	if err != nil {
		return nil, fmt.Errorf("hold the executable: %w", os.NewSyscallError("fcntl", err))
	}
	return &Executable{os.NewFile(uintptr(fd), f.Name()), fd}, nil
}

// Path is what a child execs ([Command.Executable]). It is valid until Close.
func (e *Executable) Path() string { return fmt.Sprintf("/proc/self/fd/%d", e.fd) }

// Close lets go of the file. What was started from it goes on.
func (e *Executable) Close() error { return e.file.Close() }
