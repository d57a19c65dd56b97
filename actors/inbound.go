package actors

import (
	"fmt"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// What one other process may have in this one. Beyond that it gets ErrTooMany, so that a leak there
// does not fill the memory here.
const (
	maxAsks     = 1 << 16 // that it sent, its own or passed on, and that are not answered
	maxMonitors = 1 << 16
	maxNames    = 1 << 14
)

// inbound owns what other processes wait for in this one: their asks and monitors.
type inbound struct {
	mu       sync.Mutex
	asks     map[askKey]*askShare         // not answered yet -> the share of the peer that it came from
	monitors map[string]map[uint64]string // address -> ref -> id of the actor

	unwatch func(id string, k watchKey) // takes a monitor of an actor back
}

// askKey names an ask of another process. The process that sent it here may have passed it on for
// the asker, or may have made the address up.
type askKey struct {
	address string
	request uint32
}

// askShare counts the asks that came from one peer and are not answered. It is guarded by
// inbound.mu.
type askShare struct {
	address    string // immutable
	unanswered int
}

func keyOf(pid *actor.PID) askKey { return askKey{pid.Address, pid.RequestId} }

func newInbound(unwatch func(id string, k watchKey)) *inbound {
	return &inbound{asks: make(map[askKey]*askShare), monitors: make(map[string]map[uint64]string), unwatch: unwatch}
}

// beginAsk notes an ask and counts it in the share of the peer that it came from. It returns false
// if that share is used up.
func (in *inbound) beginAsk(share *askShare, pid *actor.PID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if share.unanswered >= maxAsks {
		return false
	}
	k := keyOf(pid)
	if old := in.asks[k]; old != nil {
		old.unanswered--
	}
	in.asks[k] = share
	share.unanswered++
	return true
}

// endAsk forgets an ask. It returns how many are left of those that came from the same peer.
func (in *inbound) endAsk(pid *actor.PID) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	k := keyOf(pid)
	share := in.asks[k]
	if share == nil {
		return 0
	}
	delete(in.asks, k)
	share.unanswered--
	return share.unanswered
}

func (in *inbound) hasAsk(pid *actor.PID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.asks[keyOf(pid)] != nil
}

// addMonitor notes a monitor of the actor with an id. The error is ErrTooMany, or ErrMalformed when
// there is one with this ref.
func (in *inbound) addMonitor(address string, ref uint64, id string) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.monitors[address]
	if set == nil {
		set = make(map[uint64]string)
		in.monitors[address] = set
	}
	if _, ok := set[ref]; ok {
		return ErrMalformed
	}
	if len(set) >= maxMonitors {
		return fmt.Errorf("%w: %d monitors, the limit", ErrTooMany, maxMonitors)
	}
	set[ref] = id
	return nil
}

// hasMonitor reports whether a monitor has neither ended nor been taken back.
func (in *inbound) hasMonitor(address string, ref uint64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := in.monitors[address][ref]
	return ok
}

// has reports whether a process waits for something here, or has sent it.
func (in *inbound) has(address string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for k, share := range in.asks {
		if k.address == address || share.address == address {
			return true
		}
	}
	return len(in.monitors[address]) > 0
}

// takeMonitor removes a monitor and returns the id of the actor; false when there is none.
func (in *inbound) takeMonitor(address string, ref uint64) (id string, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.monitors[address]
	id, ok = set[ref]
	delete(set, ref)
	if len(set) == 0 {
		delete(in.monitors, address)
	}
	return id, ok
}

// addresses returns the processes that wait for something here, or have sent it.
func (in *inbound) addresses() map[string]struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := make(map[string]struct{})
	for k, share := range in.asks {
		set[k.address], set[share.address] = struct{}{}, struct{}{}
	}
	for a := range in.monitors {
		set[a] = struct{}{}
	}
	return set
}

// drop forgets what processes that have ended waited for, and the asks that came by way of them:
// only they knew whether those askers live.
func (in *inbound) drop(ended func(address string) bool) {
	over := make(map[watchKey]string)
	in.mu.Lock()
	for k, share := range in.asks {
		if ended(k.address) || ended(share.address) {
			delete(in.asks, k)
			share.unanswered--
		}
	}
	for a, set := range in.monitors {
		if ended(a) {
			delete(in.monitors, a)
			for ref, id := range set {
				over[watchKey{address: a, ref: ref}] = id
			}
		}
	}
	in.mu.Unlock()
	for k, id := range over {
		in.unwatch(id, k)
	}
}

// dropOne is drop for one process.
func (in *inbound) dropOne(address string) { in.drop(func(a string) bool { return a == address }) }
