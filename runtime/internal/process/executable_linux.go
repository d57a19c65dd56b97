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

// Self opens the program that this process runs. The caller owns it.
func Self() (*Executable, error) { return OpenExecutable("/proc/self/exe") }

// OpenExecutable opens the program at path. The caller owns it. If path is no regular file, the
// error is EACCES, as for exec: to open a pipe waits, and to open a device may have effects.
func OpenExecutable(path string) (*Executable, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, os.ErrPermission) { // mode 0711: the file may be executed, not read
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

// Close closes the file. Processes that were started from it go on.
func (e *Executable) Close() error { return e.file.Close() }
