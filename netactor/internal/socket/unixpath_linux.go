package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/safepath"
)

// openUnix opens a Unix socket at a path, or an abstract one.
func openUnix(r SocketSpec) (*Bound, error) {
	typ := map[string]int{"unix": unix.SOCK_STREAM, "unixpacket": unix.SOCK_SEQPACKET, "unixgram": unix.SOCK_DGRAM}[r.Network]
	fd, err := unix.Socket(unix.AF_UNIX, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &Bound{fd: fd}
	if s, err = s.Applied(r); err != nil {
		return nil, err
	}
	if strings.HasPrefix(r.Address, "@") {
		if err := s.bindAbstract(r); err != nil {
			s.Close()
			return nil, err
		}
		return s.listenIfStream(r)
	}
	at, err := s.bindPath(r)
	if err != nil {
		s.Close()
		return nil, err
	}
	if s, err = s.listenIfStream(r); err != nil {
		at.remove()
		at.close()
		return nil, err
	}
	s.path, s.file = r.Address, at
	return s, nil
}

// An abstract name is taken until the last copy of its socket is closed, and nothing waits for that
// close. So bindAbstract tries again for about 250 ms.
const (
	nameTries = 25
	namePause = 10 * time.Millisecond
)

// bindAbstract binds s at the abstract name of r. It may wait until the name is free.
func (s *Bound) bindAbstract(r SocketSpec) (err error) {
	for range nameTries {
		if err = unix.Bind(s.fd, &unix.SockaddrUnix{Name: r.Address}); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
		time.Sleep(namePause)
	}
	return os.NewSyscallError("bind", err)
}

// bindPath binds s at the path of r and returns its file. It sets the mode of the file before s
// listens, so that no client connects in between.
func (s *Bound) bindPath(r SocketSpec) (*socketFile, error) {
	at, err := openSocketFile(r.Address, "bind")
	if err != nil {
		return nil, err
	}
	sa := &unix.SockaddrUnix{Name: at.address(r.Address)}
	err = unix.Bind(s.fd, sa)
	if errors.Is(err, unix.EADDRINUSE) && r.Ordinal == 0 {
		if err := at.removeStale(); err != nil {
			at.close()
			return nil, err
		}
		err = unix.Bind(s.fd, sa)
	}
	if err != nil {
		at.close()
		return nil, os.NewSyscallError("bind", err)
	}
	if err := at.claim(r); err != nil {
		at.remove()
		at.close()
		return nil, err
	}
	return at, nil
}

// AdoptFile takes over the file of a Unix socket that a worker has made: Close will remove it. The
// path is the kernel's name of the socket. The file must be a socket and belong to the user that
// made s listen, which the kernel reports; otherwise AdoptFile leaves it alone.
func (s *Bound) AdoptFile() {
	network, name, err := s.Address()
	if err != nil || !address.IsLocal(network) || !filepath.IsAbs(name) {
		return
	}
	listener, err := unix.GetsockoptUcred(s.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return
	}
	at, err := openSocketFile(name, "share")
	if err != nil {
		return
	}
	file, st, err := at.open()
	if err != nil {
		at.close()
		return
	}
	_ = unix.Close(file)
	if !isSocket(st) || st.Uid != listener.Uid {
		at.close()
		return
	}
	at.dev, at.ino = st.Dev, st.Ino
	s.path, s.file = name, at
}

// claim takes over the file that bind has just made, and gives it the mode of r.
func (f *socketFile) claim(r SocketSpec) error {
	file, st, err := f.open()
	if err == nil {
		defer unix.Close(file)
	}
	if err != nil || !isSocket(st) {
		return os.NewSyscallError("bind: what was made there was taken away", unix.EBUSY)
	}
	mine := int(st.Uid) == os.Geteuid() // false on a network file system that maps users; there the file stays
	if mine {
		f.dev, f.ino, f.mode = st.Dev, st.Ino, r.Mode
	}
	switch {
	case r.Mode == 0:
		return nil
	case !mine:
		return os.NewSyscallError("chmod", unix.EPERM)
	}
	return os.NewSyscallError("chmod", unix.Chmod(safepath.ProcPath(file), uint32(r.Mode.Perm())))
}

// socketFile is the place of the file of a Unix socket: its directory, which is held open, and its
// name there. Each method looks the name up anew.
type socketFile struct {
	dir  *safepath.Directory
	name string
	dev  uint64 // of the file, once we may remove it
	ino  uint64 // 0: we may not remove it
	mode fs.FileMode
}

// maxUnixPath is the room in sockaddr_un, less the final zero (unix(7)).
const maxUnixPath = 107

// openSocketFile opens the directory of a path. Errors name call.
func openSocketFile(path, call string) (*socketFile, error) {
	name := filepath.Base(path)
	if !address.CleanPath(path) || name == "/" {
		return nil, os.NewSyscallError(call+": the path is not absolute and clean", unix.EINVAL)
	}
	dir, err := safepath.OpenDirectory(filepath.Dir(path), call)
	if err != nil {
		return nil, err
	}
	return &socketFile{dir: dir, name: name}, nil
}

// address returns the address to bind to. That is the path, by which clients know the socket. If
// the path is too long, or might lead elsewhere by now, it is an address through the open
// directory.
func (f *socketFile) address(path string) string {
	if f.dir.Trusted && len(path) <= maxUnixPath {
		return path
	}
	return safepath.ProcPath(f.dir.FD) + "/" + f.name
}

// open opens the file, or symbolic link, of that name with O_PATH, without the right to read or
// write it.
func (f *socketFile) open() (fd int, st unix.Stat_t, err error) {
	fd, err = unix.Openat(f.dir.FD, f.name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	if err = unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// remove removes the file, if it is still the file that we may remove.
func (f *socketFile) remove() {
	var st unix.Stat_t
	if f.ino == 0 || unix.Fstatat(f.dir.FD, f.name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return
	}
	if isSocket(st) && st.Dev == f.dev && st.Ino == f.ino {
		_ = unix.Unlinkat(f.dir.FD, f.name, 0)
	}
	f.ino = 0
}

func (f *socketFile) close() { f.dir.Close() }

// removeStale removes the file if it is a socket of this process's user on which no process listens
// any more. The type of the socket does not matter: the kernel refuses a connection only if no
// process has the socket. The only way to know is to connect; a live server sees one empty
// connection. It is not atomic: two programs that start at once on one stale path can take it from
// each other. removeStale leaves any other file alone, and returns an error that says what the file
// is.
func (f *socketFile) removeStale() error {
	file, st, err := f.open()
	if errors.Is(err, unix.ENOENT) {
		return nil // it has just been removed
	}
	if err != nil {
		return os.NewSyscallError("bind", err)
	}
	defer unix.Close(file)
	taken := func(why string) error {
		return os.NewSyscallError("bind: the path is that of "+why, unix.EADDRINUSE)
	}
	if !isSocket(st) {
		return taken(kindOf(st))
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: safepath.ProcPath(file)}); !errors.Is(err, unix.ECONNREFUSED) {
		return os.NewSyscallError("bind", unix.EADDRINUSE) // it is in use, or we may not connect
	}
	if int(st.Uid) != os.Geteuid() {
		return taken(fmt.Sprintf("a socket without a listener, but it is user %d's: remove it", st.Uid))
	}
	f.dev, f.ino = st.Dev, st.Ino
	f.remove()
	return nil
}

func isSocket(st unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFSOCK }

// kindOf says what a file is.
func kindOf(st unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a regular file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a pipe"
	}
	return "a device"
}
