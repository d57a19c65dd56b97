package actors

import (
	"fmt"

	"github.com/coppice-go/coppice/supervisor"
)

// Attach makes the process with an address reachable through c. Its frames are taken from then on,
// if they carry the incarnation. The peer must attach this process too, with [Config].Incarnation
// of this one.
//
// A second Attach of the same does nothing, so that a frame handler which does not know whether it
// is the first may call it. A later incarnation detaches the earlier one; an earlier one is
// [ErrStale]. The caller keeps c, and closes it.
func (s *System) Attach(address string, incarnation uint64, c Conn) error {
	if err := s.peers.attach(address, incarnation, c); err != nil {
		return fmt.Errorf("actors: attach %q: %w", address, err)
	}
	return nil
}

// Detach takes note that the process with an address has ended, and why. Everything that waits for
// it ends at once: asks, in flight or taken, fail with a [DownError], monitors fire, watchers get
// Terminated, its names are free, and the master tells all other processes. Later frames of it are
// refused.
//
// Call it after the Conn's Closed, so that the process's last messages are in, and when the exit
// reason is known. Detach of a process that is not attached does nothing.
func (s *System) Detach(address string, reason supervisor.Reason) {
	if p := s.peers.find(address); p != nil {
		s.peers.detach(p, reason)
	}
}

// Uplink names the attached process, the master, that resolves names, makes lanes to the processes
// that are not attached, and tells of their end. The master has none.
func (s *System) Uplink(address string) { s.peers.setUplink(address) }
