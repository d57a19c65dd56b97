package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An Executable is a program file held open, so that a later start runs the same
// code whatever happens to the path, and the directory in which it is started.
type Executable struct {
	file *os.File
	dir  *os.File // nil = this program's
	name string   // of dir
}

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
	return &Executable{file: f}, nil
}

// StartIn opens the directory in which the program is to be started when [Command.Dir] is not
// absolute. Without StartIn that is this program's directory at each start.
func (e *Executable) StartIn(dir string) error {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("hold the directory: %w", err)
	}
	if e.dir != nil {
		_ = e.dir.Close() // a path descriptor
	}
	e.dir, e.name = f, ""
	if dir != "." {
		e.name = dir
	}
	return nil
}

// directory returns a path to dir, which is relative, as seen from the directory of the program;
// dir itself if that is this program's directory, for which a child needs no rights.
func (e *Executable) directory(dir string) (string, error) {
	at, err := e.dir.Stat()
	if err != nil {
		return "", err
	}
	if here, err := os.Stat("."); err == nil && os.SameFile(at, here) {
		return dir, nil
	}
	rc, err := e.dir.SyscallConn()
	if err != nil {
		return "", err
	}
	path := ""
	err = rc.Control(func(fd uintptr) { path = filepath.Join(fmt.Sprintf("/proc/self/fd/%d", fd), dir) })
	return path, err
}

// Close closes the file. Processes that were started from it go on.
func (e *Executable) Close() error {
	if e.dir == nil {
		return e.file.Close()
	}
	return errors.Join(e.file.Close(), e.dir.Close())
}

// maxBuildID is how far from the beginning of a program its notes are looked for.
const maxBuildID = 64 << 10

// BuildID returns the program's Go build ID (`go tool buildid`): the note of type 4 of "Go" in its
// ELF file. It is empty if the file cannot be read or has none, and of nil.
func (e *Executable) BuildID() string {
	if e == nil {
		return ""
	}
	b := make([]byte, maxBuildID)
	n, _ := e.file.ReadAt(b, 0) // what there is
	const name, kind = "Go\x00\x00", 4
	for at := 0; ; at++ { // Elf64_Nhdr: length of the name, length of the ID, kind; name; ID
		i := bytes.Index(b[at:n], []byte(name))
		if at += i; i < 0 {
			return ""
		}
		if at < 12 || binary.NativeEndian.Uint32(b[at-12:]) != uint32(len(name)) || binary.NativeEndian.Uint32(b[at-4:]) != kind {
			continue
		}
		id := b[at+len(name) : n]
		return string(id[:min(binary.NativeEndian.Uint32(b[at-8:]), uint32(len(id)))])
	}
}
