package netactor

import "fmt"

// Policy is how the connections of a listener are shared among its workers. The policy of the first
// request holds for all; see [Request].
//
// While a pool is being reloaded, each policy of the listener process keeps its rule among the
// pool's workers of the newest generation: a client that reconnects, because its worker drains,
// does not come to a worker that drains next. Older workers get connections while no newer one
// takes them: none is ready, or all are suspended or at Limits.PerWorker. With Hash the slots that
// are replaced serve the clients of the others until those are replaced too. A Picker is not shown
// the older workers meanwhile. With Shared and ReusePort the kernel chooses, and knows no
// generations.
type Policy uint8

const (
	// RoundRobin offers each connection to the worker that was offered one, or had no room, the
	// longest ago. Under sequential load it is strictly cyclic.
	RoundRobin Policy = iota
	// LeastLoaded offers to the worker with the fewest connections, offered or open; or with the
	// lowest load that the workers reported, see listen.Listeners.Report.
	LeastLoaded
	// Hash offers all connections from one client address, or with one key of the user's function,
	// to one worker, while it has room. It uses consistent hashing over the workers' slots.
	Hash
	// Custom asks the user's Picker.
	Custom
	// Shared gives each worker a duplicate of the listening socket. The workers accept, and the
	// kernel balances. A killed worker loses the connections that it had accepted, and the workers
	// are trusted with the socket.
	Shared
	// ReusePort gives each worker its own listening socket on the one address (SO_REUSEPORT; TCP
	// and UDP), and the kernel spreads the clients over the sockets by a hash of the addresses. The
	// master owns the sockets: the socket of a dead worker keeps its backlog for the replacement. A
	// killed worker loses the connections that it had accepted.
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

// Dispatched reports whether the listener process accepts and hands over, so that workers never
// have the listening socket. It is true for all policies before Shared.
func (p Policy) Dispatched() bool { return p < Shared }
