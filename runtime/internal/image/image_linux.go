package image

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/mark"
)

// Over are the signals that would end the program between the exec and init, and are ignored
// meanwhile. SIGTERM, which Go does not let be ignored, is not one of them.
var Over = []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2}

func init() {
	if !Replaced() {
		return
	}
	// The exec of /proc/self/fd/N has made it "N". This is the main thread, whose name ps shows.
	name := append([]byte(filepath.Base(os.Args[0])), 0)
	_ = unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0) // cut to 15 bytes; it cannot fail
	caught.by = make(map[os.Signal]chan os.Signal)
	for _, sig := range append([]syscall.Signal{unix.SIGTERM}, Over...) {
		if sig == unix.SIGTERM || mark.Got.Ignored&(1<<(sig-1)) == 0 {
			ch := make(chan os.Signal, 1)
			signal.Notify(ch, sig)
			caught.by[sig] = ch
		}
	}
}

var taken atomic.Bool

// Inherited returns the state that the image before left, a sealed file in memory, and the
// descriptors that belong to it, in the order in which they were given. The caller owns them. They
// are returned once; Replaced tells before whether there are any.
func Inherited() (state *os.File, fds []int, err error) {
	m := mark.Got
	switch {
	case m == nil || taken.Swap(true):
		return nil, nil, errors.New("no state was left to this image, or it was taken before")
	case m.Bad != "":
		return nil, nil, fmt.Errorf("%s=%s", mark.Var, m.Bad)
	}
	const sealed = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if seals, err := unix.FcntlInt(uintptr(m.State), unix.F_GET_SEALS, 0); err != nil || seals&sealed != sealed {
		return nil, nil, fmt.Errorf("%s: the state, descriptor %d, is no sealed file in memory", mark.Var, m.State)
	}
	for _, fd := range m.Files {
		fds = append(fds, int(fd))
	}
	return os.NewFile(uintptr(m.State), "state"), fds, nil
}

// An Action is what a signal does: struct kernel_sigaction, which begins with the handler.
type Action [8]uintptr

// Ignore has a signal ignored.
var Ignore = Action{1}

// IsDefault reports whether the signal has its default.
func (a *Action) IsDefault() bool { return a[0] == 0 }

// Ignores reports whether the signal is ignored.
func (a *Action) Ignores() bool { return a[0] == Ignore[0] }

// Sigaction gets and sets the action of a signal, each unless nil. Package os/signal does not learn
// of it.
func Sigaction(sig syscall.Signal, set, get *Action) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), 8, 0, 0)
	return errno
}

// endUnasked has a signal end the program again that nothing asks for: signal.Stop sets it to what
// it was when the image began.
func endUnasked(sig os.Signal) {
	var act Action
	if s, ok := sig.(syscall.Signal); ok && Sigaction(s, nil, &act) == 0 && act.Ignores() {
		_ = Sigaction(s, &Action{}, nil) // as the call before
	}
}
