package netactor

import (
	"fmt"
	"net/netip"
	"sync"
)

// Policy says how the connections of a listener are shared among its workers.
// The first asker's policy holds for all; see [Request].
type Policy uint8

const (
	// RoundRobin offers each connection to the worker that was given one, or
	// had no room, the longest ago. Under sequential load it is strictly cyclic.
	RoundRobin Policy = iota
	// LeastLoaded offers to the worker with the fewest open connections.
	LeastLoaded
	// Hash offers all connections of one client address to one worker, while
	// it has room: consistent hashing over the workers' slots.
	Hash
	// Custom asks the Picker that was registered under Request.Picker.
	Custom
	// Shared gives each worker a duplicate of the listening socket. The workers
	// accept themselves and the kernel balances. What a killed worker had
	// accepted is lost, and the workers are trusted with the socket.
	Shared

	policies // how many there are
)

var policyNames = [policies]string{"round-robin", "least-loaded", "hash", "custom", "shared"}

// String returns the name of the policy, as in configuration and flags.
func (p Policy) String() string {
	if p < policies {
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
	if p >= policies {
		return nil, fmt.Errorf("netactor: unknown policy %d", uint8(p))
	}
	return []byte(policyNames[p]), nil
}

// UnmarshalText reads the policy's name.
func (p *Policy) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePolicy(string(b))
	return err
}

// dispatched reports whether a dispatcher accepts and hands over, so that
// workers never see the listening socket.
func (p Policy) dispatched() bool { return p != Shared }

// Picker chooses a worker for one connection. It runs in the listener process,
// under the dispatcher's lock: it must be quick, must not block, and must not
// call the dispatcher. A Picker is used by one dispatcher at a time, but
// possibly for several listeners.
type Picker interface {
	// Pick returns an index into free, which is never empty and is borrowed
	// until Pick returns. peer is the client's address; the zero value for a
	// Unix socket. An index out of range is taken for 0.
	Pick(peer netip.AddrPort, free []Load) int
}

// Load is what a Picker sees of a worker that has room.
type Load struct {
	Worker  Worker
	Offered int // connections offered to it and not yet claimed, of this listener
	Open    int // connections it has claimed and not yet closed, of this listener
}

var pickers struct {
	sync.Mutex
	byName map[string]Picker
}

// RegisterPicker makes p known in this process as name, for Request.Picker. To
// be called before the tree is started, in every process alike: functions are
// never sent, each process finds its own. The last one wins.
func RegisterPicker(name string, p Picker) {
	pickers.Lock()
	defer pickers.Unlock()
	if pickers.byName == nil {
		pickers.byName = make(map[string]Picker)
	}
	pickers.byName[name] = p
}

func lookupPicker(name string) Picker {
	pickers.Lock()
	defer pickers.Unlock()
	return pickers.byName[name]
}
