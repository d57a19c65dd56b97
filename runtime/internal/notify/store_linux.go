package notify

import (
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of the wait for a service manager that does not read, or does not answer: the first
// time, and from then on until it does.
const (
	storeTimeout = time.Second
	storeGlance  = time.Millisecond
)

// A DescriptorStore is that of the service manager which started the program (sd_notify(3),
// FDSTORE=1): what is in it outlives the program, and comes back by name with the next start. Its
// methods may be called by any goroutine, and keep the order of their messages. They wait for a
// service manager that does not answer once, until it answers again.
type DescriptorStore struct {
	address string
	log     *slog.Logger
	max     int // that the service manager keeps

	mu    sync.Mutex
	names map[string]bool // what is in the store
	held  []leftSocket    // what came from there, and was not taken

	full       bool     // the service manager's socket had no room the last time
	unanswered *os.File // a barrier that was waited for in vain; nil = none
}

type leftSocket struct {
	name string
	fd   int
}

// NewDescriptorStore returns the store of the service manager at address, in the form of
// NOTIFY_SOCKET, which keeps max descriptors. Those that the program was started with are to be
// given to Leave.
func NewDescriptorStore(log *slog.Logger, address string, max int) *DescriptorStore {
	return &DescriptorStore{log: log, address: address, max: max, names: make(map[string]bool)}
}

// Leave takes ownership of fd, of which the service manager has a duplicate, for the next Take.
func (s *DescriptorStore) Leave(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name] = true
	s.held = append(s.held, leftSocket{name, fd})
}

// Take returns a descriptor that was left, for which match returns true; the caller owns it.
func (s *DescriptorStore) Take(match func(name string, fd int) bool) (name string, fd int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range s.held {
		if match(h.name, h.fd) {
			s.held = append(s.held[:i], s.held[i+1:]...)
			return h.name, h.fd, true
		}
	}
	return "", -1, false
}

// Keep puts a duplicate of fd into the store, in place of what has the name there. It borrows fd,
// and returns false if there is no room.
func (s *DescriptorStore) Keep(name string, fd int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] {
		s.dropLocked(name) // a name that is stored twice is there twice
	}
	if len(s.names) >= s.max {
		s.log.Warn("systemd's descriptor store is full: a socket is not kept when everything is killed", "name", name, "FDSTORE", s.max,
			"hint", "raise FileDescriptorStoreMax=")
		return false
	}
	// Without FDPOLL=0 systemd would drop a socket that has an error for a moment.
	if err := s.sendLocked("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fd); err != nil {
		s.log.Warn("a socket is not kept by systemd", "name", name, "err", err)
		return false
	}
	s.names[name] = true
	return true
}

// Drop closes what has the name in the store. When it returns that is closed, unless the service
// manager did not answer in time.
func (s *DescriptorStore) Drop(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(name)
}

func (s *DescriptorStore) dropLocked(name string) {
	delete(s.names, name)
	err := s.sendLocked("FDSTOREREMOVE=1\nFDNAME=" + name)
	if err == nil {
		err = s.barrierLocked()
	}
	if err != nil {
		s.log.Warn("systemd may still keep a socket that is closed, and hold its address", "name", name, "err", err)
	}
}

// Rest closes what no caller has taken, also in the store, and returns the names.
func (s *DescriptorStore) Rest() (names []string) {
	for {
		name, fd, ok := s.Take(func(string, int) bool { return true })
		if !ok {
			return names
		}
		_ = unix.Close(fd)
		s.Drop(name)
		names = append(names, name)
	}
}

// barrierLocked waits until the service manager has handled all that it was sent: then it closes
// the descriptor that comes with BARRIER=1.
func (s *DescriptorStore) barrierLocked() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	rc, err := w.SyscallConn()
	if err == nil {
		_ = rc.Control(func(fd uintptr) { err = s.sendLocked("BARRIER=1", int(fd)) }) // w is open
	}
	_ = w.Close()
	switch {
	case err != nil:
	case s.unanswered != nil: // it does not answer, so this is not waited for either
		err = context.DeadlineExceeded
	case !answered(r, storeTimeout):
		s.unanswered = r
		return context.DeadlineExceeded
	}
	_ = r.Close()
	return err
}

// answered reports whether the other end of a barrier is closed, and waits for that.
func answered(barrier *os.File, wait time.Duration) bool {
	_ = barrier.SetReadDeadline(time.Now().Add(wait))
	_, err := barrier.Read(make([]byte, 1))
	return !os.IsTimeout(err)
}

// waitLocked returns how long the service manager is waited for.
func (s *DescriptorStore) waitLocked() time.Duration {
	if s.unanswered != nil && answered(s.unanswered, storeGlance) {
		_ = s.unanswered.Close()
		s.unanswered = nil
	}
	if s.unanswered != nil || s.full {
		return storeGlance
	}
	return storeTimeout
}

// sendLocked sends a message with descriptors, and waits for room.
func (s *DescriptorStore) sendLocked(state string, fds ...int) error {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.address, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetWriteDeadline(time.Now().Add(s.waitLocked()))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Write(func(fd uintptr) bool { // WriteMsgUnix refuses a socket that is connected
		serr = unix.Sendmsg(int(fd), []byte(state), rights, nil, unix.MSG_DONTWAIT)
		return serr != unix.EAGAIN && serr != unix.EINTR
	})
	s.full = os.IsTimeout(err)
	if err != nil {
		return err
	}
	return os.NewSyscallError("sendmsg", serr)
}
