package dispatch

import (
	"cmp"
	"slices"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// Stats returns the counts of all listeners, sorted by number, and those of each listener's
// workers, sorted by ID.
func (d *Dispatcher) Stats() []netactor.ListenerStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.statsLocked()
}

func (d *Dispatcher) statsLocked() []netactor.ListenerStats {
	now := shm.Monotonic()
	out := make([]netactor.ListenerStats, 0, len(d.acceptors))
	for _, a := range d.acceptors {
		for _, m := range a.listener.Members {
			d.balancer.Refresh(m)
		}
		st := a.listener.Stats(now)
		st.Backlog = a.src.backlog()
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b netactor.ListenerStats) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// statsEvery is how often a dispatcher sends its counts to the master, while they change.
const statsEvery = time.Second

// statsChangedLocked makes the dispatcher send its counts to the master.
func (d *Dispatcher) statsChangedLocked() {
	if !d.statsChanged && d.master != nil && !d.closed {
		d.statsChanged = true
		d.statsTimer.Reset(statsEvery)
	}
}

// sendStats sends the counts to the master. It sends the counts of very many workers less often.
func (d *Dispatcher) sendStats() {
	d.mu.Lock()
	stats, master, closed := d.statsLocked(), d.master, d.closed
	rows := 0
	for _, l := range stats {
		rows += len(l.Workers)
	}
	d.statsChanged = false
	if wait := time.Duration(rows) * 10 * time.Millisecond; wait > statsEvery && !closed {
		d.statsChanged = true
		d.statsTimer.Reset(wait)
	}
	d.mu.Unlock()
	if master != nil && !closed {
		_ = master.TrySend(&fdipc.Frame{Kind: wire.KindStats, Payload: wire.Encode(stats)}) // if it fails, the next one follows
	}
}
