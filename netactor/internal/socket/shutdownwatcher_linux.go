package socket

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor/internal/epoll"
)

// ShutdownWatcher reports listening sockets that were shut down. It is a separate epoll that asks
// for no event: then epoll reports hang-ups only. So a new connection does not wake it.
type ShutdownWatcher struct {
	poll *epoll.Poll
	tell func(number uint64)
}

// NewShutdownWatcher returns a watcher. The caller runs its Run on a goroutine, which calls tell.
func NewShutdownWatcher(tell func(number uint64)) (*ShutdownWatcher, error) {
	poll, err := epoll.New("hangups")
	return &ShutdownWatcher{poll, tell}, err
}

// Run calls tell for each socket that is shut down, until Close.
func (w *ShutdownWatcher) Run() {
	for events := w.poll.Wait(); len(events) > 0; events = w.poll.Wait() {
		for i := range events {
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
	_ = w.poll.Control(op, s.fd, &e)
}

// Close stops watching. It does not wait for a call of tell that has begun.
func (w *ShutdownWatcher) Close() { w.poll.Close() }
