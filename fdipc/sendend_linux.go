package fdipc

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// sendEnd is the end of a socket that is only sent on. It stays out of the runtime's poller, which
// would be woken for each packet that the peer takes. Only while there is no room, a duplicate is
// in the poller.
type sendEnd struct {
	socketEnd
	mu            sync.Mutex
	waiter        *os.File // in the poller, since there was no room; nil: none
	stopped       bool     // no sender may wait any more
	paused        bool     // no sender may wait now
	sentSinceWait int      // packets sent without waiting since there was a waiter
}

// leavePollerAfter is how many packets in a row find room before the waiter leaves the poller.
const leavePollerAfter = 64

// newSendEnd takes ownership of fd, which must be blocking: that keeps it out of the poller.
func newSendEnd(fd int) (*sendEnd, error) {
	s := &sendEnd{socketEnd: socketEnd{f: os.NewFile(uintptr(fd), "fdipc data")}}
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

func (s *sendEnd) try(p *packet) error {
	err := s.socketEnd.try(p)
	if err == nil && s.waiter != nil {
		if s.sentSinceWait++; s.sentSinceWait == leavePollerAfter {
			s.dropWaiter(false)
		}
	}
	return err
}

func (s *sendEnd) send(p *packet) error {
	if err := s.try(p); !errors.Is(err, errAgain) || p.io.errno != unix.EAGAIN {
		return err
	}
	s.sentSinceWait = 0
	if s.waiter == nil {
		w, err := duplicate(s.f)
		if err != nil {
			return errAgain // no descriptor for that: it is tried again after a while
		}
		s.mu.Lock()
		if s.stopped || s.paused {
			err := os.ErrDeadlineExceeded
			if s.stopped {
				err = ErrClosed
			}
			s.mu.Unlock()
			w.Close()
			return err
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

func (s *sendEnd) pause(_, writes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = writes
	if s.waiter != nil {
		s.waiter.SetWriteDeadline(pausedUntil(writes))
	}
}

func (s *sendEnd) stop() {
	s.socketEnd.stop()
	s.dropWaiter(true)
}

func (s *sendEnd) close() error {
	s.dropWaiter(true)
	return s.socketEnd.close()
}

// dropWaiter closes the waiter, which ends a wait. over: no other will be made.
func (s *sendEnd) dropWaiter(over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = s.stopped || over
	if s.waiter != nil {
		s.waiter.Close()
	}
	if !s.stopped {
		s.waiter = nil // else it is left to its user to find closed
	}
}
