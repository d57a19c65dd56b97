package socket

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ShutdownWatcher tells of listening sockets that somebody has shut down. It is an epoll of its own that
// asks for no event: what is left are hang-ups, which epoll always tells. So a connection
// that comes wakes nobody here.
type ShutdownWatcher struct {
	f    *os.File
	rc   syscall.RawConn
	tell func(number uint64)
}

// NewShutdownWatcher is to be run on a goroutine, where it calls tell.
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

// Run ends with close.
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

// number is the 64 bits of an event that are the caller's.
func number(e *unix.EpollEvent) *uint64 { return (*uint64)(unsafe.Pointer(&e.Fd)) }

// Add watches s, which tell knows as n.
func (w *ShutdownWatcher) Add(s *Bound, n uint64) { w.control(unix.EPOLL_CTL_ADD, s, n) }

// Remove is to be called before the socket is closed: others have it too, and then epoll would go
// on to tell of it.
func (w *ShutdownWatcher) Remove(s *Bound) { w.control(unix.EPOLL_CTL_DEL, s, 0) }

func (w *ShutdownWatcher) control(op int, s *Bound, n uint64) {
	e := unix.EpollEvent{Events: 1 << 31} // EPOLLET alone: once for each shutdown, not as long as it lasts
	if IsPacket(s.fd) {
		e.Events |= unix.EPOLLRDHUP // one direction is enough to end reading
	}
	*number(&e) = n
	_ = w.rc.Control(func(fd uintptr) { _ = unix.EpollCtl(int(fd), op, s.fd, &e) })
}

// Close stops watching. It does not wait for tell, which may be on its way to the caller.
func (w *ShutdownWatcher) Close() { _ = w.f.Close() }
