package coppice

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// channelFD is the number that the channel has in a child. Not 3, which is
// where LISTEN_FDS starts (sd_listen_fds(3)).
const channelFD = 10

// highFD is above every number that a child is given. The executable is held up
// there because the child resolves /proc/self/fd/N after its own descriptors
// were moved into place.
const highFD = 64

// launcher forks every process of the tree on one locked thread that never
// ends: the kernel sends the parent-death signal when the forking *thread*
// dies, not the process (prctl(2), PR_SET_PDEATHSIG).
var launcher = sync.OnceValue(func() chan<- func() {
	forks := make(chan func())
	go func() { // owned by the process; nothing ends it, see above
		runtime.LockOSThread()
		for f := range forks {
			f()
		}
	}()
	return forks
})

// command is what to start, and with what. It leads a process group of its own,
// so that a Ctrl-C at the terminal is the master's alone.
type command struct {
	path     string // what is exec'd; argv[0] is what the program sees
	argv     []string
	env      []string
	dir      string
	stdout   *os.File // the child's ends of its output; closed by start
	stderr   *os.File
	channel  *os.File // nil for a foreign program; closed by start
	deathSig syscall.Signal
}

// start forks and execs cmd and returns once the exec has succeeded. It takes
// ownership of the child's ends in cmd and closes them in every case.
func start(cmd command) (*osProcess, error) {
	defer closeAll(cmd.stdout, cmd.stderr, cmd.channel)
	stdin, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("coppice: start %s: %w", cmd.path, err)
	}
	defer stdin.Close()

	files := []*os.File{stdin, cmd.stdout, cmd.stderr}
	env := cmd.env
	if cmd.channel != nil {
		for len(files) < channelFD {
			files = append(files, nil)
		}
		files = append(files, cmd.channel)
		env = append(env[:len(env):len(env)], fdipc.Environ(channelFD, nil)...)
	}
	fds, err := rawFDs(files)
	if err != nil {
		return nil, fmt.Errorf("coppice: start %s: %w", cmd.path, err)
	}
	var (
		pid, pidfd int
		done       = make(chan struct{})
	)
	launcher() <- func() {
		defer close(done)
		pid, err = syscall.ForkExec(cmd.path, cmd.argv, &syscall.ProcAttr{
			Dir: cmd.dir, Env: env, Files: fds,
			Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: cmd.deathSig, PidFD: &pidfd},
		})
	}
	<-done
	runtime.KeepAlive(files)
	if err != nil {
		return nil, &os.PathError{Op: "start", Path: cmd.argv[0], Err: err}
	}
	return newOSProcess(pid, pidfd)
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

// executable is the program file that a generation was started from, held open
// so that a restart runs the same code whatever happens to the path.
type executable struct {
	file *os.File
}

// openExecutable holds the program that this process runs.
func openExecutable() (*executable, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("coppice: hold the executable: %w", err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, highFD)
	if err != nil {
		return nil, fmt.Errorf("coppice: hold the executable: %w", os.NewSyscallError("fcntl", err))
	}
	return &executable{os.NewFile(uintptr(fd), f.Name())}, nil
}

// path is what a child execs. It is valid until close.
func (e *executable) path() string { return fmt.Sprintf("/proc/self/fd/%d", e.file.Fd()) }

func (e *executable) close() error { return e.file.Close() }

// outputPipe returns a pipe for a child's output: the read end waits in the
// poller, the write end blocks, as a program may expect of its standard output.
func outputPipe() (r, w *os.File, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(p[0]), "output"), os.NewFile(uintptr(p[1]), "output"), nil
}

func closeAll(files ...*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
