package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/image"
	"github.com/coppice-go/coppice/runtime/internal/mark"
)

// starts is held for reading by each start, and by a Suspension for writing.
var starts sync.RWMutex

// A Suspension holds up all starts of processes, until Resume.
type Suspension struct{ once sync.Once }

// Suspend waits until no start is under way, and holds up those that come. If ctx ends first, it
// returns its error and no start is held up for longer than those under way take.
func Suspend(ctx context.Context) (*Suspension, error) {
	if err := lock(ctx, &starts); err != nil {
		return nil, fmt.Errorf("wait for the start of a process: %w", err)
	}
	return &Suspension{}, nil
}

// Resume lets starts go on.
func (s *Suspension) Resume() { s.once.Do(starts.Unlock) }

// lock locks l, unless ctx ends first.
func lock(ctx context.Context, l sync.Locker) error {
	locked := make(chan struct{})
	go func() { // ends when it has the lock
		l.Lock()
		select {
		case locked <- struct{}{}:
		case <-ctx.Done():
			l.Unlock()
		}
	}()
	select {
	case <-locked:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Image is the next image of this program.
type Image struct {
	Executable *Executable
	Args       []string // begins with argv[0], which is required and should be the program's path
	Env        []string // LISTEN_* of it is left out: its numbers mean nothing to the next image

	// State is a sealed file in memory (memfile.Sealed), and FDs belong to it. The next image gets
	// them with the numbers that they have, by image.Inherited, and no other descriptor above 2.
	State *os.File
	FDs   []int

	// Last, unless nil, is called right before the exec, when signals already do what they do over
	// it. If it returns an error, that is the exec's.
	Last func() error
}

// Exec replaces this program by the next image of it, in this process: the PID stays, the children
// stay its children, and so do the descriptors that next names. All else ends, without a word: call
// it when all that must live on stands in the state. Exec returns only if the exec fails. Then this
// image goes on as before, except that a CPU profile under way has ended.
//
// It waits until ctx ends for a fork of other code of this program, which would inherit the
// descriptors, and for the writer of a CPU profile. A SIGHUP, SIGINT, SIGUSR1 or SIGUSR2 that comes
// between Last and the next image's init is dropped, also if the exec fails. A SIGTERM in that time
// ends the program: a Go program cannot begin with SIGTERM ignored, and one that is blocked over
// the exec ends the next image. SIGTTIN and SIGTTOU are dropped if this image catches them.
//
// In the next image SIGHUP and SIGINT are ignored again after the last signal.Stop for them, since
// it has found them so.
func (s *Suspension) Exec(ctx context.Context, next Image) error {
	return &os.PathError{Op: "exec", Path: next.Args[0], Err: execNext(ctx, next)}
}

func execNext(ctx context.Context, next Image) error {
	if err := PrepareExec(); err != nil {
		return err
	}
	fds := make([]uintptr, 0, len(next.FDs)+1)
	for _, fd := range next.FDs {
		fds = append(fds, uintptr(fd))
	}
	state, err := rawFDs([]*os.File{next.State})
	if err != nil || slices.Contains(state, closed) {
		return errors.Join(err, os.ErrInvalid)
	}
	fds = append(fds, state...)
	if err := stopProfile(ctx); err != nil {
		return err
	}
	// A fork locks ForkLock for writing. As a reader, Exec is not overtaken by the next forks.
	if err := lock(ctx, syscall.ForkLock.RLocker()); err != nil {
		return fmt.Errorf("wait for another fork of this program: %w", err)
	}
	defer syscall.ForkLock.RUnlock()
	done := make(chan struct{})
	launcher() <- func() {
		defer close(done)
		err = replace(next, fds)
	}
	<-done
	runtime.KeepAlive(next)
	return err
}

// stopProfile ends a CPU profile. Its timer would outlive the exec, and its signal end the next
// image (setitimer(2), SIGPROF).
func stopProfile(ctx context.Context) error {
	stopped := make(chan struct{})
	go func() { // ends when the profile is written
		defer close(stopped)
		pprof.StopCPUProfile()
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the end of a CPU profile: %w", context.Cause(ctx))
	}
}

// replace execs the next image, on the launcher's thread. When it returns, what it changed is set
// back.
func replace(next Image, fds []uintptr) error {
	rc, err := next.Executable.file.SyscallConn()
	if err != nil {
		return err
	}
	if err := closeAllOnExec(); err != nil {
		return err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return os.NewSyscallError("clock_gettime", err)
	}
	last := len(fds) - 1
	m := mark.Mark{PID: int64(os.Getpid()), State: int64(fds[last]), At: now.Nano(), Ignored: ignoredAtStart}
	for _, fd := range fds[:last] {
		m.Files = append(m.Files, int64(fd))
	}
	env := append(slices.DeleteFunc(slices.Clone(next.Env), func(kv string) bool {
		return strings.HasPrefix(kv, "LISTEN_PID=") || strings.HasPrefix(kv, "LISTEN_FDS=") || strings.HasPrefix(kv, "LISTEN_FDNAMES=")
	}), mark.Var+"="+m.String())

	for _, fd := range fds {
		if _, err := unix.FcntlInt(fd, unix.F_SETFD, 0); err != nil {
			return os.NewSyscallError(fmt.Sprintf("fcntl of descriptor %d", fd), err)
		}
		defer unix.CloseOnExec(int(fd))
	}
	defer setBackFileLimit()()
	defer ignoreOver()()
	if next.Last != nil {
		if err := next.Last(); err != nil {
			return err
		}
	}
	path := ""
	cerr := rc.Control(func(fd uintptr) { // fd stays this file during the call
		path = fmt.Sprintf("/proc/self/fd/%d", fd)
		err = syscall.Exec(path, next.Args, env)
	})
	if cerr != nil {
		return cerr
	}
	return reason(err, path, "")
}

// setBackFileLimit returns a function that sets the limit of descriptors to what it is now:
// syscall.Exec sets that with which the program was started, and leaves it so when it fails. It
// makes the call itself, since syscall would take the limit for the program's own.
func setBackFileLimit() func() {
	var l unix.Rlimit
	prlimit := func(set, get *unix.Rlimit) {
		_, _, _ = unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), 0, 0) // it cannot fail
	}
	prlimit(nil, &l)
	return func() { prlimit(&l, nil) }
}

// ignoreOver has the kernel drop the signals that would end or stop the next image before it
// catches them, and those that were ignored when the program was first started. SIGTERM gets its
// default, which it has after the exec: better than to be caught and forgotten. It goes around
// package os/signal, which does not say how to set back what other code has asked of it.
func ignoreOver() (setBack func()) {
	was := make(map[syscall.Signal]image.Action)
	for sig := syscall.Signal(1); sig < 32; sig++ {
		var act image.Action
		if image.Sigaction(sig, nil, &act) != 0 {
			continue
		}
		over := slices.Contains(image.Over, sig) || sig == unix.SIGPROF || ignoredAtStart&(1<<(sig-1)) != 0 ||
			(sig == unix.SIGTTIN || sig == unix.SIGTTOU) && !act.IsDefault()
		to := &image.Ignore
		if sig == unix.SIGTERM {
			over, to = true, &image.Action{}
		}
		// With SIGCHLD ignored, the kernel would reap the children.
		if over && sig != unix.SIGCHLD && image.Sigaction(sig, to, nil) == 0 {
			was[sig] = act
		}
	}
	return func() {
		for sig, act := range was {
			_ = image.Sigaction(sig, &act, nil) // it was so
		}
	}
}
