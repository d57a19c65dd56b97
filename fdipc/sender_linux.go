package fdipc

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sender is the end of a socket that is only sent on. It stays out of the runtime's poller, which would be woken for each
// packet that the peer takes; only while there is no room a duplicate joins it.
type sender struct {
	socket
	mu     sync.Mutex
	waiter *os.File // in the poller, since there was no room; nil: none
	over   bool     // nobody may wait any more
	calm   int      // packets sent without waiting since there was a waiter
}

// calmAfter is how many packets in a row find room before the waiter leaves the poller.
const calmAfter = 64

// newSender takes ownership of fd, which must be blocking: that keeps it out of the poller.
func newSender(fd int) (*sender, error) {
	s := &sender{socket: socket{f: os.NewFile(uintptr(fd), "fdipc data")}}
	rc, err := s.f.SyscallConn()
	if err == nil {
		growBuffer(fd)
		err = os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
	}
	if err != nil {
		s.f.Close()
		return nil, err
	}
	s.rc = rc
	return s, nil
}

func (s *sender) try(p *packet) error {
	err := s.socket.try(p)
	if err == nil && s.waiter != nil {
		if s.calm++; s.calm == calmAfter {
			s.part(false)
		}
	}
	return err
}

func (s *sender) send(p *packet) error {
	if err := s.try(p); !errors.Is(err, errAgain) || p.io.errno != unix.EAGAIN {
		return err
	}
	s.calm = 0
	if s.waiter == nil {
		w, err := duplicate(s.f)
		if err != nil {
			return errAgain // no descriptor for that: it is tried again after a while
		}
		s.mu.Lock()
		if s.over {
			s.mu.Unlock()
			w.Close()
			return ErrClosed
		}
		s.waiter = w
		s.mu.Unlock()
	}
	rc, err := s.waiter.SyscallConn()
	if err != nil {
		return s.closed(err)
	}
	return s.sent(p, rc.Write(p.io.send))
}

func (s *sender) stop() {
	s.socket.stop()
	s.part(true)
}

func (s *sender) close() error {
	s.part(true)
	return s.socket.close()
}

// part closes the waiter, which ends a wait.
func (s *sender) part(over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = s.over || over
	if s.waiter != nil {
		s.waiter.Close()
	}
	if !s.over {
		s.waiter = nil // else it is left to its user to find closed
	}
}
