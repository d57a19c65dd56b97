package process

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/image"
)

// launcher forks every process on one locked thread that never ends: the kernel sends the
// parent-death signal when the forking *thread* dies, not the process (prctl(2), PR_SET_PDEATHSIG).
//
// For the same reason it is the thread that execs the next image of this program, and by that
// becomes the main thread there. So in an image after an exec the launcher must be the main thread.
var launcher = sync.OnceValue(func() chan<- func() {
	catchIgnored()
	forks := make(chan func())
	serve := func() {
		for f := range forks {
			f()
		}
	}
	if image.Replaced() {
		if noExec = onMainThread(serve); noExec == nil {
			return forks
		}
	}
	go func() { // never ends, see above
		runtime.LockOSThread()
		serve()
	}()
	return forks
})

// noExec is why [Suspension.Exec] is refused. The launcher sets it first.
var noExec error

// PrepareExec makes the launcher, if that was not made yet, and returns why an exec would be
// refused. In an image after an exec it takes the main thread, which is only possible while that
// runs the main goroutine: so call it, or [Start], on the main goroutine. Otherwise processes are
// started by another thread, and there is no further exec in this process.
func PrepareExec() error {
	launcher()
	return noExec
}

// OnMainThread returns nil on the main thread, which the main goroutine has to itself in an image
// after an exec, and in a program that is asked whether it could be one ([mark.Trial]).
func OnMainThread() error {
	if unix.Gettid() != unix.Getpid() {
		return fmt.Errorf("%w: in a program that has replaced itself, the tree must be started by the main goroutine", errors.ErrUnsupported)
	}
	return nil
}

// onMainThread starts a goroutine on the main thread, which runs serve, and ends the lock of the
// main goroutine on that thread. Its goroutines get the threads by chance, so it holds those of the
// wrong ones until it has the right one.
func onMainThread(serve func()) error {
	if err := OnMainThread(); err != nil {
		return err
	}
	runtime.UnlockOSThread()   // of the init of package mark
	const tries, quick = 64, 8 // seldom more than one is needed
	found, over := make(chan bool), make(chan struct{})
	defer close(over)
	for i := range tries {
		if i >= quick { // it runs another goroutine, perhaps until that waits for something
			time.Sleep(time.Millisecond)
		}
		go func() { // the right one never ends, the others end with onMainThread
			runtime.LockOSThread()
			is := unix.Gettid() == unix.Getpid()
			found <- is
			if is {
				serve()
			}
			<-over
			runtime.UnlockOSThread()
		}()
		if <-found {
			return nil
		}
	}
	return fmt.Errorf("%w: another goroutine of the program has locked the main thread", errors.ErrUnsupported)
}

// abandon ends a child whose start has failed with err, and closes its pidfd, if it has one.
func abandon(pid, pidfd int, err error) error {
	err = errors.Join(err, discard(pid))
	if pidfd >= 0 {
		err = errors.Join(err, unix.Close(pidfd))
	}
	return err
}

// closeAllOnExec makes every descriptor of this program close-on-exec. Go opens descriptors so, but
// the descriptors that the program was started with, or that C code opened, would reach every
// child.
func closeAllOnExec() error {
	const first = 3
	err := unix.CloseRange(first, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC)
	if err == nil {
		return nil
	}
	// Linux before 5.11, or a seccomp filter, which may use any errno.
	entries, readErr := os.ReadDir("/proc/self/fd")
	if readErr != nil {
		return errors.Join(os.NewSyscallError("close_range", err), readErr)
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= first {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// catchIgnored makes this program catch and drop the signals that were ignored when it was started,
// by nohup, or as a background job of a script (SIGINT, SIGQUIT). A child gets the default
// disposition of a caught signal; an ignored signal stays ignored over fork and exec. catchIgnored
// leaves the signals of job control: to catch SIGTTOU is not to ignore it.
func catchIgnored() {
	for sig := syscall.Signal(1); sig < 32; sig++ {
		var act image.Action
		if !slices.Contains(uncaught, sig) && image.Sigaction(sig, nil, &act) == 0 && act.Ignores() {
			ignoredAtStart |= 1 << (sig - 1)
			signal.Notify(dropped, sig)
		}
	}
}

// uncaught are the signals that cannot be caught, and the signals of job control.
var uncaught = []syscall.Signal{unix.SIGKILL, unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU}

// dropped receives the signals that were ignored when this program was started. Nothing reads it:
// package signal does not wait for readers.
var dropped = make(chan os.Signal, 1)

// ignoredAtStart are the signals that were ignored when this program was started: bit n-1 is signal
// n. The next image is started with them ignored.
var ignoredAtStart int64
