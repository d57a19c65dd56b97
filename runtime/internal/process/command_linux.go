package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/coppice-go/coppice/runtime/internal/wall"
)

// Command describes a process to start. All of it is in effect before the program's first
// instruction.
type Command struct {
	// Path is the program to exec, without a search in PATH. It is ignored if Executable is set. A
	// relative path begins at Dir.
	Path       string
	Executable *Executable

	Args []string // begins with argv[0], which is required
	Env  []string // "KEY=value", the whole environment

	// ListenPID adds LISTEN_PID to the environment, with the number of the process.
	ListenPID bool

	// Dir is the working directory; a relative one begins at that of the Executable, or else at
	// this program's. "" = there.
	Dir string

	// Files are the process's descriptors by number, from 0; a nil File means a closed number. At
	// most MaxFiles. Borrowed until Start returns.
	Files []*os.File

	// DeathSignal is sent to the process when this program dies; 0 = none.
	DeathSignal syscall.Signal

	Credential *syscall.Credential // user and groups; nil = this program's
	Cgroup     *os.File            // the directory of its cgroup (v2) from the fork on; borrowed until Start returns
	Rlimits    []Rlimit            // see setrlimit(2)
	Nice       int                 // -20 to 19; 0 = this program's
	Wall       *wall.Wall          // what it may do; nil = what this program may. Borrowed until Start returns

	dir string // the path of Dir for the child
}

// findDir finds the path of Dir. The path holds as long as the Executable is open.
func (cmd *Command) findDir() (err error) {
	cmd.dir = cmd.Dir
	if e := cmd.Executable; e != nil && e.dir != nil && !filepath.IsAbs(cmd.Dir) {
		cmd.dir, err = e.directory(cmd.Dir)
		cmd.Dir = filepath.Join(e.name, cmd.Dir) // for errors
	}
	return err
}

// Start forks and execs cmd as the leader of a new process group, so that only this program gets a
// Ctrl-C at the terminal. It returns once the exec has succeeded. An error is an *os.PathError with
// argv[0] as its path; it wraps the errno of the failed call, or an *OptionError that does. Any
// goroutine may call Start. Starts happen one after another, and not during a [Suspension]: one
// that waits for a file system holds up the others, see [Reach].
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
	for _, l := range cmd.Rlimits {
		if _, ok := rlimits[l.Name]; !ok {
			return nil, &OptionError{l.String(), fmt.Errorf("%w: there is no such limit", syscall.EINVAL)}
		}
	}
	for _, s := range slices.Concat(cmd.Args, cmd.Env, []string{cmd.Path, cmd.Dir}) {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, fmt.Errorf("%w: %q has a zero byte", syscall.EINVAL, s)
		}
	}
	if err := cmd.findDir(); err != nil {
		return nil, err
	}
	fds, err := number(cmd)
	defer fds.close()
	if err != nil {
		return nil, err
	}
	starts.RLock()
	defer starts.RUnlock()
	var (
		pid, pidfd int
		lacks      []string
		done       = make(chan struct{})
	)
	if err := cmd.Wall.Program(fds.path); err != nil {
		return nil, err
	}
	launcher() <- func() {
		defer close(done)
		pid, pidfd, lacks, err = launch(cmd, fds.path, fds.fds)
	}
	<-done
	runtime.KeepAlive(cmd)
	if err != nil {
		return nil, err
	}
	p, err := hold(pid, pidfd)
	if err == nil && cmd.Wall != nil {
		p.lacks = append(slices.Clone(cmd.Wall.Lacks), lacks...)
	}
	return p, err
}

// reason returns the error of the exec of the program at path, with an explanation.
func reason(err error, path, dir string) error {
	if dir != "" && !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	_, missing := os.Stat(path)
	if execRefused() {
		return call("clone or execve", needsClone)(err)
	}
	err = os.NewSyscallError("execve", err)
	switch {
	case errors.Is(err, syscall.ENOENT) && missing == nil:
		return fmt.Errorf("%w: the interpreter that its first line names", err)
	case errors.Is(err, syscall.EAGAIN):
		return tooMany(err)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("%w: an argument or variable of more than 128 KiB, or all together of more than a quarter of the stack's limit (ulimit -s)", err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: neither a program for this machine nor a script that begins with #!", err)
	}
	return err
}
