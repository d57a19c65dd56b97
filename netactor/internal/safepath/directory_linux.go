package safepath

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Directory is a directory that is held open, without the right to read it (O_PATH). Operations in
// it use this descriptor, so that a change of its name does not matter.
type Directory struct {
	FD int

	// Trusted reports whether only root and this process's user can change a name in the path of
	// the directory, or a name in it that is theirs. Otherwise a name may mean another file by the
	// time it is used.
	Trusted bool

	// exclusive reports whether no other user can add a name to it either.
	exclusive bool
}

// maxPathLinks is how many symbolic links a path may have (path_resolution(7)).
const maxPathLinks = 40

// OpenDirectory opens the directory of an absolute path. A worker may have chosen the path, and may
// own part of it. So a symbolic link is followed only if no other user than root and this process's
// user can have put it there: it belongs to one of these two, and its directory is trusted. For any
// other link the error is ELOOP. Errors name call, the system call that the caller opens the
// directory for.
func OpenDirectory(path, call string) (*Directory, error) {
	d := &Directory{FD: -1, Trusted: true}
	if err := d.enter(unix.AT_FDCWD, "/"); err != nil {
		return nil, os.NewSyscallError(call, err)
	}
	links, way := 0, "/"
	for rest := strings.Split(path, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		target, err := d.link(name)
		if err != nil {
			d.Close()
			return nil, os.NewSyscallError(call, err)
		}
		if target == "" {
			way = filepath.Join(way, name)
			if err := d.enter(d.FD, name); err != nil {
				d.Close()
				return nil, os.NewSyscallError(call, err)
			}
			continue
		}
		if links++; target == foreignLink || links > maxPathLinks {
			d.Close()
			if target == foreignLink {
				call = fmt.Sprintf("%s: %s is a symbolic link that others than root and the master's user can change", call, filepath.Join(way, name))
			}
			return nil, os.NewSyscallError(call, unix.ELOOP)
		}
		if target[0] == '/' {
			way = "/"
			if err := d.enter(unix.AT_FDCWD, "/"); err != nil {
				d.Close()
				return nil, os.NewSyscallError(call, err)
			}
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return d, nil
}

// foreignLink stands for the target of a link that must not be followed. It is not a possible
// target.
const foreignLink = "\x00"

// link returns the target of the symbolic link called name in d, or "" if name is no link.
func (d *Directory) link(name string) (target string, err error) {
	fd, err := unix.Openat(d.FD, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", nil
	}
	// In a directory where other users can add names, they may have made a second name for a link
	// of root (link(2)), unless the kernel forbids that (fs.protected_hardlinks).
	if !d.Trusted || !ours(st.Uid) || !d.exclusive && st.Nlink != 1 {
		return foreignLink, nil
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", b)
	if err == nil && n == 0 {
		err = unix.ENOENT
	}
	return string(b[:max(n, 0)]), err
}

// enter moves d to the directory called name below at; name must not be a link.
func (d *Directory) enter(at int, name string) error {
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = unix.Close(fd)
		return err
	}
	d.Close()
	d.FD = fd
	// In a sticky directory, such as /tmp, other users cannot change the names of files that are
	// not theirs.
	d.Trusted = d.Trusted && ours(st.Uid) && (st.Mode&0o022 == 0 || st.Mode&unix.S_ISVTX != 0)
	d.exclusive = d.Trusted && st.Mode&0o022 == 0
	return nil
}

// Close closes the directory.
func (d *Directory) Close() {
	if d.FD >= 0 {
		_ = unix.Close(d.FD)
		d.FD = -1
	}
}

// ours reports whether a file's owner is root, or the user of this process.
func ours(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// ProcPath returns a name for the file that fd is open on, whatever its path means by now
// (proc_pid_fd(5)).
func ProcPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// OpenFile is os.OpenFile for a process with more rights than the users that can change the path.
// It follows no symbolic link that another user than root and this process's user can have put
// there. In a directory where such a user can add names, it opens only a regular file that has no
// other name. Off Linux it is os.OpenFile.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	at, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*os.File, error) { return nil, &fs.PathError{Op: "open", Path: path, Err: err} }
	for range maxPathLinks {
		i := strings.LastIndexByte(at, '/')
		fd, target, err := openIn(at[:i+1], at[i+1:], flag, perm)
		switch {
		case err == unix.EEXIST && flag&os.O_EXCL == 0: // it exists by now
		case err != nil:
			return fail(err)
		case target == "":
			return os.NewFile(uintptr(fd), path), nil
		case target[0] == '/':
			at = target
		default:
			at = at[:i+1] + target
		}
	}
	return fail(unix.ELOOP)
}

// openIn opens a file in a directory. If name is a link, it returns its target instead.
func openIn(dir, name string, flag int, perm fs.FileMode) (fd int, target string, err error) {
	d, err := OpenDirectory(dir, "open")
	if err != nil {
		return -1, "", err
	}
	defer d.Close()
	open := func(name string, flag int) (int, string, error) {
		fd, err := unix.Openat(d.FD, name, flag|unix.O_CLOEXEC, uint32(perm.Perm()))
		return fd, "", err
	}
	target, err = d.link(name)
	switch {
	case err == unix.ENOENT && flag&os.O_CREATE != 0:
		return open(name, flag|unix.O_EXCL|unix.O_NOFOLLOW)
	case err != nil:
		return -1, "", err
	case flag&os.O_EXCL != 0:
		return -1, "", unix.EEXIST
	case target == foreignLink:
		return -1, "", fmt.Errorf("a symbolic link that others than root and the master's user can change: %w", unix.ELOOP)
	case target != "" && d.isProc():
		return open(name, flag&^os.O_CREATE) // of an open file, which may have no name
	case target != "":
		return -1, target, nil
	}
	file, err := unix.Openat(d.FD, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", err
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return -1, "", err
	}
	if !d.exclusive && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink != 1) {
		return -1, "", fmt.Errorf("no regular file, or one with another name, where others than root and the master's user can put it: %w", unix.EPERM)
	}
	return open(ProcPath(file), flag&^os.O_CREATE)
}

func (d *Directory) isProc() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(d.FD, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}

// OpenRoot is os.OpenRoot of a directory of this process's user or root's that not all may write
// to. It follows no symbolic link that another user can have put there.
func OpenRoot(dir string) (*os.Root, error) {
	fail := func(err error) (*os.Root, error) { return nil, &fs.PathError{Op: "open", Path: dir, Err: err} }
	at, err := filepath.Abs(dir)
	if err != nil {
		return fail(err)
	}
	d, err := OpenDirectory(at, "open")
	if err != nil {
		return fail(err)
	}
	defer d.Close()
	var st unix.Stat_t
	if err := unix.Fstat(d.FD, &st); err != nil {
		return fail(err)
	}
	if !ours(st.Uid) || st.Mode&0o002 != 0 {
		return fail(fmt.Errorf("it belongs to another user, or all may write to it: %w", unix.EPERM))
	}
	return os.OpenRoot(ProcPath(d.FD))
}
