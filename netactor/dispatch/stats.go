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

// Stats returns the counts of all listeners, by number; the workers of each by
// ID.
func (d *Dispatcher) Stats() []netactor.ListenerStats {
	now := shm.Monotonic()
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]netactor.ListenerStats, 0, len(d.acceptors))
	for _, a := range d.acceptors {
		for _, m := range a.listener.Members {
			d.balancer.Refresh(m)
		}
		out = append(out, a.listener.Stats(now))
	}
	slices.SortFunc(out, func(a, b netactor.ListenerStats) int { return cmp.Compare(a.Number, b.Number) })
	return out
}

// pushEvery is how often a dispatcher tells the master its counts, when they change.
const statsEvery = time.Second

// statsChangedLocked sees to it that the master is told the counts.
func (d *Dispatcher) statsChangedLocked() {
	if !d.statsChanged && d.master != nil && !d.closed {
		d.statsChanged = true
		d.statsTimer.Reset(statsEvery)
	}
}

// sendStats tells the master the counts. Those of very many workers are told less often.
func (d *Dispatcher) sendStats() {
	stats := d.Stats()
	rows := 0
	for _, l := range stats {
		rows += len(l.Workers)
	}
	d.mu.Lock()
	master, closed := d.master, d.closed
	d.statsChanged = false
	if wait := time.Duration(rows) * 10 * time.Millisecond; wait > statsEvery && !closed {
		d.statsChanged = true
		d.statsTimer.Reset(wait)
	}
	d.mu.Unlock()
	if master != nil && !closed {
		_ = master.TrySend(&fdipc.Frame{Kind: wire.KindStats, Payload: wire.Encode(stats)}) // the next will do
	}
}
