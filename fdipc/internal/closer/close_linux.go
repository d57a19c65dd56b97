package closer

import (
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// closeAll closes xs; neighbours at one stroke, unless it is to be patient. It may wait without
// end.
func closeAll(xs []Item, patient bool) {
	var run Item
	n := 0 // neighbours from run.FD on
	for i := range xs {
		switch x := &xs[i]; {
		case x.V != nil:
			x.V.Close()
		case patient:
			// Others that have the connection may have it linger; that is not for this copy to wait
			// for.
			_ = unix.SetsockoptLinger(int(x.FD), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
			FD(int(x.FD))
		case n > 0 && x.TCP == run.TCP && x.FD == run.FD+int32(n):
			n++
		case n > 0 && x.TCP == run.TCP && x.FD == run.FD-1:
			run.FD--
			n++
		default:
			closeFDs(int(run.FD), n, run.TCP)
			run, n = *x, 1
		}
	}
	closeFDs(int(run.FD), n, run.TCP)
}

// FD closes any descriptor. It may wait, and tells the scheduler: a raw call that waits would hold
// up the garbage collector, and with it the whole process.
func FD(fd int) { _ = unix.Close(fd) }

// closeFDs closes n neighbours from fd on, all of which are the caller's, and tells the scheduler
// unless they are known to be of TCP. That one may linger, if another process wants it to; but then
// the signal by which the scheduler preempts what runs for long ends the wait, and the close goes
// on. To be told costs more than the close does: it wakes the scheduler's monitor thread, which
// then looks around every 20 µs for a while.
func closeFDs(fd, n int, tcp bool) {
	raw := tcp && preempts
	if n > 1 { // since Linux 5.9
		lo, hi := uintptr(fd), uintptr(fd+n-1)
		var e syscall.Errno
		if raw {
			_, _, e = syscall.RawSyscall(unix.SYS_CLOSE_RANGE, lo, hi, 0)
		} else {
			_, _, e = syscall.Syscall(unix.SYS_CLOSE_RANGE, lo, hi, 0)
		}
		if e == 0 {
			return
		}
	}
	for ; n > 0; n-- {
		if raw {
			rawClose(fd)
		} else {
			FD(fd)
		}
		fd++
	}
}

// preempts reports whether the scheduler interrupts threads by signals; see os/signal.
var preempts = !strings.Contains(os.Getenv("GODEBUG"), "asyncpreemptoff=1")

// rawClose closes what is known not to wait.
func rawClose(fd int) { _, _, _ = syscall.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// lingers reports whether the close of a connection waits until what was written is on its way, as
// far as can be told now.
func lingers(fd int) bool {
	var l unix.Linger
	n := uint32(unsafe.Sizeof(l))
	_, _, e := syscall.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_LINGER,
		uintptr(unsafe.Pointer(&l)), uintptr(unsafe.Pointer(&n)), 0)
	return e != 0 || l.Onoff != 0
}

// TCP closes a TCP connection at once; kept: another process still has a copy of it. TCP tells the
// scheduler only where the close may wait: a connection that is kept elsewhere does not linger
// here.
func TCP(fd int, kept bool) {
	if preempts && (kept || !lingers(fd)) {
		rawClose(fd)
		return
	}
	FD(fd)
}
