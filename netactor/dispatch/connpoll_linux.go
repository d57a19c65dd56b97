package dispatch

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connPoll is an epoll that one goroutine waits on. Others may add and remove descriptors, and wake
// that goroutine.
type connPoll struct {
	file   *os.File
	rc     syscall.RawConn
	events [64]unix.EpollEvent // used by the goroutine that waits
}

func newConnPoll(name string) (*connPoll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // required by the Go runtime's poller
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("setnonblock", err)
	}
	p := &connPoll{file: os.NewFile(uintptr(fd), name)}
	if p.rc, err = p.file.SyscallConn(); err != nil {
		_ = p.file.Close()
		return nil, err
	}
	return p, nil
}

func (p *connPoll) close() { _ = p.file.Close() }

// wakeAt makes wait return at t at the latest; the zero time is never.
func (p *connPoll) wakeAt(t time.Time) { _ = p.file.SetReadDeadline(t) }

// wake makes wait return now.
func (p *connPoll) wake() { p.wakeAt(time.Unix(1, 0)) }

// wait waits for events and returns them; none when it was woken.
func (p *connPoll) wait() []unix.EpollEvent {
	n := 0
	_ = p.rc.Read(func(fd uintptr) bool {
		n, _ = unix.EpollWait(int(fd), p.events[:], 0)
		return n > 0
	})
	return p.events[:max(0, n)]
}

// poll is wait without waiting.
func (p *connPoll) poll() []unix.EpollEvent {
	n := 0
	_ = p.rc.Control(func(fd uintptr) { n, _ = unix.EpollWait(int(fd), p.events[:], 0) })
	return p.events[:max(0, n)]
}

// add reports the events of a descriptor.
func (p *connPoll) add(fd int, events uint32) error {
	return p.control(unix.EPOLL_CTL_ADD, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// remove undoes add. Other processes will have the connection too, and without it the epoll would
// go on to report its events.
func (p *connPoll) remove(fd int) {
	_ = p.control(unix.EPOLL_CTL_DEL, &unix.EpollEvent{Fd: int32(fd)})
}

func (p *connPoll) control(op int, e *unix.EpollEvent) (err error) {
	if cerr := p.rc.Control(func(fd uintptr) { err = unix.EpollCtl(int(fd), op, int(e.Fd), e) }); cerr != nil {
		return cerr
	}
	return err
}
