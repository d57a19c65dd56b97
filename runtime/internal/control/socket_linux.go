package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxStale is how many sockets in a directory are looked at for those of trees that have ended.
const maxStale = 256

// A Socket is a listening Unix socket with a name in the file system. Close takes the name away.
type Socket struct {
	*net.UnixListener
	Path string
	file unix.Stat_t
}

// Listen makes the socket at a path, with mode 0600, in a directory that exists. A socket there to
// which no process listens is replaced, anything else is an error.
func Listen(path string) (*Socket, error) {
	dir, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.listen(path)
}

// ListenAuto makes the socket with a name in the first of the directories that can be used. It
// makes the directory, with mode 0700, if it is missing, and removes the sockets in it of trees
// that have ended. A directory must be this user's, closed to others, and no symbolic link.
func ListenAuto(dirs []string, name string) (*Socket, error) {
	var errs []error
	for _, dir := range dirs {
		s, err := listenIn(dir, name)
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func listenIn(path, name string) (*Socket, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	dir, err := openDirectory(path)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := dir.check(); err != nil {
		return nil, err
	}
	dir.removeStale()
	return dir.listen(filepath.Join(path, name))
}

// Close removes the socket's name, unless another file has it, and closes the socket. While it
// listens no other tree takes the name.
func (s *Socket) Close() error {
	if dir, err := openDirectory(filepath.Dir(s.Path)); err == nil {
		defer dir.Close()
		if st, err := dir.stat(s.Path); err == nil && st.Dev == s.file.Dev && st.Ino == s.file.Ino {
			_ = unix.Unlinkat(int(dir.Fd()), filepath.Base(s.Path), 0)
		}
	}
	return s.UnixListener.Close()
}

// directory is a directory that is held open: what is done in it is done there, whatever its name
// leads to meanwhile.
type directory struct{ *os.File }

func openDirectory(path string) (directory, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return directory{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return directory{os.NewFile(uintptr(fd), path)}, nil
}

// check returns an error if another user could reach or change what is in the directory.
func (d directory) check() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: d.Name(), Err: err}
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d, not %d", d.Name(), st.Uid, os.Geteuid())
	}
	if st.Mode&0o077 != 0 {
		return fmt.Errorf("%s is open to other users: mode %#o, want 0700", d.Name(), st.Mode&0o777)
	}
	return nil
}

// in returns a path of name in the directory, which is short enough for the address of a socket.
func (d directory) in(name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + name
}

// stat looks at the file with the last part of a path as its name.
func (d directory) stat(path string) (st unix.Stat_t, err error) {
	if err = unix.Fstatat(int(d.Fd()), filepath.Base(path), &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		err = &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st, err
}

// listen makes the socket. It has its name only once it listens, so that a socket without a
// listener is always a stale one.
func (d directory) listen(path string) (*Socket, error) {
	name := filepath.Base(path)
	if err := d.free(path); err != nil {
		return nil, err
	}
	early := "." + name + "." + strconv.Itoa(os.Getpid())
	_ = unix.Unlinkat(int(d.Fd()), early, 0) // of a process with this PID
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.in(early), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer func() { _ = unix.Unlinkat(int(d.Fd()), early, 0) }()
	ln.SetUnlinkOnClose(false) // it gets another name
	s := &Socket{UnixListener: ln, Path: path}
	err = os.Chmod(d.in(early), 0o600)
	if err == nil {
		s.file, err = d.stat(early)
	}
	if err == nil { // unlike a rename, this replaces nothing
		err = os.NewSyscallError("linkat", unix.Linkat(int(d.Fd()), early, int(d.Fd()), name, 0))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), ln.Close())
	}
	return s, nil
}

// free removes a socket at a path to which no process listens. It returns an error if there is
// something else.
func (d directory) free(path string) error {
	st, err := d.stat(path)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		return fmt.Errorf("%s is there, and is not a socket", path)
	case !d.stale(filepath.Base(path)):
		return fmt.Errorf("%s is the socket of a process that runs", path)
	}
	return os.NewSyscallError("unlinkat", unix.Unlinkat(int(d.Fd()), filepath.Base(path), 0))
}

// stale reports whether no process listens to a socket.
func (d directory) stale(name string) bool {
	c, err := net.DialTimeout("unix", d.in(name), time.Second)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, unix.ECONNREFUSED)
}

// removeStale removes the sockets of trees that have ended.
func (d directory) removeStale() {
	f, err := os.Open(d.in("."))
	if err != nil {
		return
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxStale) // the rest another time
	for _, name := range names {
		parts := strings.Split(strings.TrimSuffix(name, Suffix), ".")
		pid, err := strconv.Atoi(parts[len(parts)-1])
		if err != nil || !strings.HasSuffix(name, Suffix) {
			continue
		}
		if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); errors.Is(err, os.ErrNotExist) {
			_ = d.free(filepath.Join(d.Name(), name)) // it may be in use in another PID namespace, and stays
		}
	}
}
