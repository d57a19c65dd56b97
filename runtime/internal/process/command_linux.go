package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// MaxFiles is how many descriptors a process may be given. It keeps them below
// where an [Executable] is held.
const MaxFiles = highFD - 4

// Command is what to start, and with what. All of it is in effect before the
// program's first instruction.
type Command struct {
	// Path is what is exec'd; there is no search in PATH. With Executable set it
	// is left out.
	// A relative one begins at Dir.
	Path       string
	Executable *Executable

	Args []string // from argv[0] on; at least that
	Env  []string // "KEY=value", the whole environment
	Dir  string   // working directory; "" = this program's

	// Files are the process's descriptors by number, from 0; a nil one is closed.
	// At most MaxFiles. Borrowed until Start returns.
	Files []*os.File

	// DeathSignal is what the process gets when this program dies; 0 = nothing.
	DeathSignal syscall.Signal

	Credential *syscall.Credential // user and groups; nil = this program's
	Cgroup     *os.File            // a directory of cgroup v2 to be born in; borrowed until Start returns
	Rlimits    []Rlimit            // see setrlimit(2)
	Nice       int                 // -20 to 19; 0 = this program's
}

// settles tells whether the process must be stopped after its exec, to be given
// what a fork cannot.
func (cmd *Command) settles() bool { return len(cmd.Rlimits) > 0 || cmd.Nice != 0 }

// Start forks and execs cmd as the leader of a process group of its own, so that
// a Ctrl-C at the terminal is this program's alone. It returns once the exec has
// succeeded. An error is an *os.PathError with argv[0] as its path, around the
// errno of what failed, or an *OptionError around it. Any goroutine may call it;
// starts happen one after another.
func Start(cmd Command) (*Process, error) {
	p, err := start(cmd)
	if err != nil {
		return nil, &os.PathError{Op: "start", Path: cmd.Args[0], Err: err}
	}
	return p, nil
}

func start(cmd Command) (*Process, error) {
	if len(cmd.Files) > MaxFiles {
		return nil, &OptionError{fmt.Sprintf("Files (%d)", len(cmd.Files)), syscall.EMFILE}
	}
	fds, err := rawFDs(cmd.Files)
	if err != nil {
		return nil, err
	}
	path := cmd.Path
	if cmd.Executable != nil {
		path = cmd.Executable.Path()
		raised, err := raise(fds, cmd.Executable.fd)
		if err != nil {
			return nil, err
		}
		defer unix.Close(raised) // EBADF when there is none
	}
	var (
		pid, pidfd int
		done       = make(chan struct{})
	)
	launcher() <- func() {
		defer close(done)
		pid, pidfd, err = launch(cmd, path, fds)
	}
	<-done
	runtime.KeepAlive(cmd)
	if err != nil {
		return nil, explain(err, cmd, path)
	}
	return hold(pid, pidfd)
}

// rawFDs returns the numbers of files, borrowed until the caller lets go of
// them; a nil file stands for a closed number. It does not use Fd, which would
// set the open file description, shared with others, to blocking.
func rawFDs(files []*os.File) ([]uintptr, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		if f == nil {
			fds[i] = ^uintptr(0)
			continue
		}
		rc, err := f.SyscallConn()
		if err != nil {
			return nil, err
		}
		if err := rc.Control(func(fd uintptr) { fds[i] = fd }); err != nil {
			return nil, err
		}
	}
	return fds, nil
}

// raise replaces one of fds by a duplicate above number above, and returns that,
// or -1 when there is none to replace. ForkExec uses numbers from the highest of
// fds on for itself, in the child: they must not meet the executable there.
func raise(fds []uintptr, above int) (raised int, err error) {
	for i, fd := range fds {
		if fd == ^uintptr(0) {
			continue
		}
		raised, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, above+1)
		if errors.Is(err, unix.EINVAL) { // fcntl(2): the number is beyond RLIMIT_NOFILE
			err = fmt.Errorf("%w: a number above %d is needed (RLIMIT_NOFILE)", unix.EMFILE, above)
		}
		if err != nil {
			return -1, os.NewSyscallError("fcntl", err)
		}
		fds[i] = uintptr(raised)
		return raised, nil
	}
	return -1, nil
}

// explain says which option of cmd is the cause of a failed start, where that can
// be told: the kernel's word is one errno for everything between fork and exec.
func explain(err error, cmd Command, path string) error {
	if _, ok := errors.AsType[*OptionError](err); ok {
		return err
	}
	if cmd.Dir != "" {
		if info, serr := os.Stat(cmd.Dir); serr != nil {
			return &OptionError{"Dir " + cmd.Dir, err}
		} else if !info.IsDir() {
			return &OptionError{"Dir " + cmd.Dir, err}
		}
	}
	if cmd.Dir != "" && !filepath.IsAbs(path) {
		path = filepath.Join(cmd.Dir, path)
	}
	_, missing := os.Stat(path)
	switch {
	case cmd.Credential != nil && errors.Is(err, syscall.EPERM):
		return &OptionError{fmt.Sprintf("user %d, group %d", cmd.Credential.Uid, cmd.Credential.Gid), err}
	case cmd.Cgroup != nil && isCgroupError(err):
		return &OptionError{"Cgroup " + cmd.Cgroup.Name(), err}
	case errors.Is(err, syscall.ENOENT) && missing == nil:
		return fmt.Errorf("%w: the interpreter that its first line names", err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: neither a program for this machine nor a script that begins with #!", err)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("%w: too many processes (RLIMIT_NPROC, pids.max, threads-max)", err)
	}
	return err
}

// isCgroupError tells whether clone3 with CLONE_INTO_CGROUP says err of the
// cgroup (clone(2)); exec says none of these.
func isCgroupError(err error) bool {
	for _, e := range []syscall.Errno{syscall.EBUSY, syscall.EOPNOTSUPP, syscall.EBADF, syscall.EINVAL, syscall.ENODEV, syscall.EACCES} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
