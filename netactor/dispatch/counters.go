package dispatch

import (
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// countersFrame takes a worker's page of counters for one of its listeners. It consumes the
// handles.
func (d *Dispatcher) countersFrame(id, number uint64, f *fdipc.Frame) {
	if len(f.Handles) != 1 {
		return
	}
	c, err := shm.OpenSharedCounters(f.Handles[0])
	d.mu.Lock()
	w := d.balancer.Workers[id]
	if w == nil || err != nil || w.Memberships[number] == nil || w.Memberships[number].Counters != nil {
		d.mu.Unlock()
		return // without the page, the worker reports its closed connections by frames alone
	}
	m := w.Memberships[number]
	m.Counters = c
	link, enough := w.Link, m.Listener != nil && !m.Listener.NeedsEnds
	d.mu.Unlock()
	if link != nil && enough {
		_ = link.TrySend(&fdipc.Frame{Kind: wire.KindCounters, Target: number})
	}
}

// stopReports tells the workers that joined before the listener was opened to stop their KindDone
// frames.
func (d *Dispatcher) stopReports(l *balance.ListenerState) {
	if l.NeedsEnds {
		return
	}
	var links []*fdipc.Conn
	d.mu.Lock()
	for _, m := range l.Members {
		if m.Counters != nil && m.Worker.Link != nil {
			links = append(links, m.Worker.Link)
		}
	}
	d.mu.Unlock()
	for _, c := range links {
		_ = c.TrySend(&fdipc.Frame{Kind: wire.KindCounters, Target: l.Number})
	}
}
