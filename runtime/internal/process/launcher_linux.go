package process

import (
	"os"
	"runtime"
	"sync"
	"syscall"
)

// launcher forks every process on one locked thread that never ends: the kernel
// sends the parent-death signal when the forking *thread* dies, not the process
// (prctl(2), PR_SET_PDEATHSIG).
var launcher = sync.OnceValue(func() chan<- func() {
	forks := make(chan func())
	go func() { // owned by the program; nothing ends it, see above
		runtime.LockOSThread()
		for f := range forks {
			f()
		}
	}()
	return forks
})

// Command is what to start, and with what.
type Command struct {
	Path string   // what is exec'd: no search in PATH
	Args []string // from argv[0] on; at least that
	Env  []string // "KEY=value", the whole environment
	Dir  string   // working directory; "" = this program's

	// Files are the process's descriptors by number, from 0; a nil one is closed.
	// Borrowed until Start returns.
	Files []*os.File

	// DeathSignal is what the process gets when this program dies; 0 = nothing.
	DeathSignal syscall.Signal
}

// Start forks and execs cmd as the leader of a process group of its own, so that
// a Ctrl-C at the terminal is this program's alone. It returns once the exec has
// succeeded. An error is an *os.PathError with argv[0] as its path and the errno
// of what failed. Any goroutine may call it; starts happen one after another.
func Start(cmd Command) (*Process, error) {
	fds, err := rawFDs(cmd.Files)
	if err != nil {
		return nil, &os.PathError{Op: "start", Path: cmd.Args[0], Err: err}
	}
	var (
		pid, pidfd int
		done       = make(chan struct{})
	)
	launcher() <- func() {
		defer close(done)
		pid, err = syscall.ForkExec(cmd.Path, cmd.Args, &syscall.ProcAttr{
			Dir: cmd.Dir, Env: cmd.Env, Files: fds,
			Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: cmd.DeathSignal, PidFD: &pidfd},
		})
	}
	<-done
	runtime.KeepAlive(cmd.Files)
	if err != nil {
		return nil, &os.PathError{Op: "start", Path: cmd.Args[0], Err: err}
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
