package socket

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ShutdownWatcher reports listening sockets that were shut down. It is a separate epoll that asks
// for no event: then epoll reports hang-ups only. So a new connection does not wake it.
type ShutdownWatcher struct {
	f    *os.File
	rc   syscall.RawConn
	tell func(number uint64)
}

// NewShutdownWatcher returns a watcher. The caller runs its Run on a goroutine, which calls tell.
func NewShutdownWatcher(tell func(number uint64)) (*ShutdownWatcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or it would not join the runtime's poller
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	w := &ShutdownWatcher{f: os.NewFile(uintptr(fd), "hangups"), tell: tell}
	if w.rc, err = w.f.SyscallConn(); err != nil {
		_ = w.f.Close()
		return nil, err
	}
	return w, nil
}

// Run calls tell for each socket that is shut down, until Close.
func (w *ShutdownWatcher) Run() {
	var events [16]unix.EpollEvent
	for {
		n := 0
		if err := w.rc.Read(func(fd uintptr) bool {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		}); err != nil {
			return
		}
		for i := range n {
			w.tell(*number(&events[i]))
		}
	}
}

// number returns the 64 bits of an event that belong to the caller.
func number(e *unix.EpollEvent) *uint64 { return (*uint64)(unsafe.Pointer(&e.Fd)) }

// Add watches s. tell is called with n.
func (w *ShutdownWatcher) Add(s *Bound, n uint64) { w.control(unix.EPOLL_CTL_ADD, s, n) }

// Remove stops watching s. Call it before the socket is closed: other processes have the socket
// too, and epoll would go on to report it.
func (w *ShutdownWatcher) Remove(s *Bound) { w.control(unix.EPOLL_CTL_DEL, s, 0) }

func (w *ShutdownWatcher) control(op int, s *Bound, n uint64) {
	e := unix.EpollEvent{Events: 1 << 31} // EPOLLET alone: one event for each shutdown, not while it lasts
	if IsPacket(s.fd) {
		e.Events |= unix.EPOLLRDHUP // one direction is enough to end reading
	}
	*number(&e) = n
	_ = w.rc.Control(func(fd uintptr) { _ = unix.EpollCtl(int(fd), op, s.fd, &e) })
}

// Close stops watching. It does not wait for a call of tell that has begun.
func (w *ShutdownWatcher) Close() { _ = w.f.Close() }
