// Package epoll has an epoll in which one goroutine waits for descriptors that are not in the Go
// runtime's poller.
package epoll

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// MaxEvents is how many events Wait returns at most.
const MaxEvents = 64

// Poll is an epoll that one goroutine waits on. Others may add and remove descriptors, and wake
// that goroutine.
type Poll struct {
	file   *os.File
	rc     syscall.RawConn
	events [MaxEvents]unix.EpollEvent // used by the goroutine that waits
}

// New makes a Poll. name is for people.
func New(name string) (*Poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // required by the Go runtime's poller
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	p := &Poll{file: os.NewFile(uintptr(fd), name)}
	if p.rc, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	return p, nil
}

// Close closes the epoll, which ends Wait.
func (p *Poll) Close() { _ = p.file.Close() }

// WakeAt makes Wait return at t at the latest; the zero time is never.
func (p *Poll) WakeAt(t time.Time) { _ = p.file.SetReadDeadline(t) }

// Wake makes Wait return now.
func (p *Poll) Wake() { p.WakeAt(time.Unix(1, 0)) }

// Wait waits for events and returns them, valid until the next call; none when it was woken, or p
// is closed.
func (p *Poll) Wait() []unix.EpollEvent {
	n := 0
	_ = p.rc.Read(func(fd uintptr) bool {
		n, _ = unix.EpollWait(int(fd), p.events[:], 0)
		return n > 0
	})
	return p.events[:max(0, n)]
}

// Look is Wait without waiting.
func (p *Poll) Look() []unix.EpollEvent {
	n := 0
	_ = p.rc.Control(func(fd uintptr) { n, _ = unix.EpollWait(int(fd), p.events[:], 0) })
	return p.events[:max(0, n)]
}

// Add has Wait return the events of a descriptor, with its number.
func (p *Poll) Add(fd int, events uint32) error {
	return p.Control(unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// Remove undoes Add. Other processes will have the connection too, and without it the epoll would
// go on to report its events.
func (p *Poll) Remove(fd int) {
	_ = p.Control(unix.EPOLL_CTL_DEL, fd, new(unix.EpollEvent))
}

// Control is epoll_ctl(2).
func (p *Poll) Control(op, fd int, e *unix.EpollEvent) (err error) {
	if cerr := p.rc.Control(func(epfd uintptr) { err = unix.EpollCtl(int(epfd), op, fd, e) }); cerr != nil {
		return cerr
	}
	return err
}
