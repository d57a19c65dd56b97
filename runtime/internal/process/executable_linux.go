package process

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// An Executable is a program file held open, so that a later start runs the same
// code whatever happens to the path.
type Executable struct{ file *os.File }

// Self holds the program that this process runs. The caller owns it.
func Self() (*Executable, error) { return OpenExecutable("/proc/self/exe") }

// OpenExecutable holds the program at path. The caller owns it. What is no regular file is
// an error, EACCES as for exec: the opening of a pipe waits, and that of a device may do
// something.
func OpenExecutable(path string) (*Executable, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, os.ErrPermission) { // mode 0711: it may be run, not read
		f, err = os.OpenFile(path, unix.O_PATH, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("hold the executable: %w", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: fmt.Errorf("no regular file (%s): %w", st.Mode(), unix.EACCES)}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold the executable: %w", err), f.Close())
	}
	return &Executable{f}, nil
}

// Close lets go of the file. What was started from it goes on.
func (e *Executable) Close() error { return e.file.Close() }
