package netactor

import "fmt"

// Policy says how the connections of a listener are shared among its workers.
// The first asker's policy holds for all; see [Request].
type Policy uint8

const (
	// RoundRobin offers each connection to the worker that was given one, or
	// had no room, the longest ago. Under sequential load it is strictly cyclic.
	RoundRobin Policy = iota
	// LeastLoaded offers to the worker with the fewest connections, offered or
	// open; or with the lowest load by its own word, see Listeners.Report.
	LeastLoaded
	// Hash offers all connections of one client address, or of one key of the user's, to
	// one worker, while it has room: consistent hashing over the workers' slots.
	Hash
	// Custom asks the user's Picker.
	Custom
	// Shared gives each worker a duplicate of the listening socket. The workers
	// accept themselves and the kernel balances. What a killed worker had
	// accepted is lost, and the workers are trusted with the socket.
	Shared
	// ReusePort gives each worker a listening socket of its own on the one address
	// (SO_REUSEPORT, TCP only), and the kernel spreads the clients over them by a hash of the
	// addresses. The sockets are the master's: a dead worker's keeps its backlog for its
	// replacement. What a killed worker had accepted is lost.
	ReusePort

	Policies // how many there are
)

var policyNames = [Policies]string{"round-robin", "least-loaded", "hash", "custom", "shared", "reuseport"}

// String returns the name of the policy, as in configuration and flags.
func (p Policy) String() string {
	if p < Policies {
		return policyNames[p]
	}
	return fmt.Sprintf("policy(%d)", uint8(p))
}

// ParsePolicy is the reverse of String.
func ParsePolicy(s string) (Policy, error) {
	for i, name := range policyNames {
		if s == name {
			return Policy(i), nil
		}
	}
	return 0, fmt.Errorf("netactor: unknown policy %q", s)
}

// MarshalText writes the policy's name.
func (p Policy) MarshalText() ([]byte, error) {
	if p >= Policies {
		return nil, fmt.Errorf("netactor: unknown policy %d", uint8(p))
	}
	return []byte(policyNames[p]), nil
}

// UnmarshalText reads the policy's name.
func (p *Policy) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePolicy(string(b))
	return err
}

// Dispatched reports whether the listener process accepts and hands over, so that
// workers never see the listening socket. All policies before Shared do.
func (p Policy) Dispatched() bool { return p < Shared }
