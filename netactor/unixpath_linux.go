package netactor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openUnix opens a Unix socket at a path, or an abstract one.
func openUnix(r Request) (*socket, error) {
	typ := map[string]int{"unix": unix.SOCK_STREAM, "unixpacket": unix.SOCK_SEQPACKET, "unixgram": unix.SOCK_DGRAM}[r.Network]
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &socket{fd: fd}
	if s, err = s.applied(r); err != nil {
		return nil, err
	}
	if strings.HasPrefix(r.Address, "@") {
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: r.Address}); err != nil {
			s.close()
			return nil, os.NewSyscallError("bind", err)
		}
		return s.serve(r)
	}
	name, done, err := shortPath(r.Address)
	if err != nil {
		s.close()
		return nil, err
	}
	defer done()
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	if errors.Is(err, unix.EADDRINUSE) && r.Ordinal == 0 && removeStale(name) {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		s.close()
		return nil, os.NewSyscallError("bind", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err == nil {
		s.path, s.dev, s.ino = r.Address, st.Dev, st.Ino
	}
	if r.Mode != 0 {
		// Before listen, so that nobody connects in between.
		if err := unix.Chmod(name, uint32(r.Mode.Perm())); err != nil {
			s.close()
			return nil, os.NewSyscallError("chmod", err)
		}
	}
	return s.serve(r)
}

// maxUnixPath is the room in sockaddr_un, less the final zero (unix(7)).
const maxUnixPath = 107

// shortPath returns a name for path that fits into a socket address: a long one
// is named through a descriptor of its directory. done is to be called when the
// name has been used.
func shortPath(path string) (name string, done func(), err error) {
	if len(path) <= maxUnixPath {
		return path, func() {}, nil
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, os.NewSyscallError("bind", err)
	}
	name = fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))
	return name, func() { _ = unix.Close(dir) }, nil
}

// removeStale removes the socket at path if nobody listens on it any more, and
// reports whether it did. Of what type it is does not matter: the kernel refuses only where nobody has it. The only way to know is to connect; a server that
// lives sees one empty connection. It is not atomic: two programs that start at
// once on one stale path can take it from each other.
func removeStale(path string) bool {
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Type() != fs.ModeSocket {
		return false
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); !errors.Is(err, unix.ECONNREFUSED) {
		return false
	}
	return unix.Unlink(path) == nil
}
