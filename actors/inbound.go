package actors

import (
	"maps"
	"slices"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
)

// What one other process may have here. Beyond it, it gets ErrTooMany: a leak in one
// process is answered there, and does not fill this one.
const (
	maxAsks     = 1 << 16 // that are not answered
	maxMonitors = 1 << 16
	maxNames    = 1 << 14
)

// inbound is what other processes wait for here.
type inbound struct {
	mu       sync.Mutex
	asks     map[string]map[uint32]struct{} // address -> request: taken, not answered yet
	monitors map[string]map[uint64]func()   // address -> ref -> takes the monitor back
}

func (in *inbound) init() {
	in.asks = make(map[string]map[uint32]struct{})
	in.monitors = make(map[string]map[uint64]func())
}

// beginAsk takes note of an ask; false when its process has too many.
func (in *inbound) beginAsk(pid *actor.PID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.asks[pid.Address]
	if len(set) >= maxAsks {
		return false
	}
	if set == nil {
		set = make(map[uint32]struct{})
		in.asks[pid.Address] = set
	}
	set[pid.RequestId] = struct{}{}
	return true
}

// endAsk returns how many of that process are left.
func (in *inbound) endAsk(pid *actor.PID) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.asks[pid.Address]
	delete(set, pid.RequestId)
	if len(set) == 0 {
		delete(in.asks, pid.Address)
	}
	return len(set)
}

func (in *inbound) hasAsk(pid *actor.PID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := in.asks[pid.Address][pid.RequestId]
	return ok
}

// addMonitor keeps off for a monitor. The error is ErrTooMany, or ErrMalformed when there
// is one with this ref.
func (in *inbound) addMonitor(address string, ref uint64, off func()) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.monitors[address]
	if set == nil {
		set = make(map[uint64]func())
		in.monitors[address] = set
	}
	if _, ok := set[ref]; ok {
		return ErrMalformed
	}
	if len(set) >= maxMonitors {
		return ErrTooMany
	}
	set[ref] = off
	return nil
}

// hasMonitor reports whether a monitor has neither ended nor been taken back.
func (in *inbound) hasMonitor(address string, ref uint64) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.monitors[address][ref] != nil
}

// takeMonitor removes a monitor and returns its off; nil when there is none.
func (in *inbound) takeMonitor(address string, ref uint64) func() {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.monitors[address]
	off := set[ref]
	delete(set, ref)
	if len(set) == 0 {
		delete(in.monitors, address)
	}
	return off
}

// addresses returns the processes that wait for something here.
func (in *inbound) addresses() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	list := slices.Collect(maps.Keys(in.asks))
	return slices.AppendSeq(list, maps.Keys(in.monitors))
}

// drop forgets what a process waited for.
func (in *inbound) drop(address string) {
	in.mu.Lock()
	set := in.monitors[address]
	delete(in.monitors, address)
	delete(in.asks, address)
	in.mu.Unlock()
	for _, off := range set {
		off()
	}
}
