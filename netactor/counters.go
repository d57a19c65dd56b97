package netactor

import "github.com/coppice-go/coppice/fdipc"

// countersFrame takes a worker's page of counters for one of its listeners. The handles are consumed.
func (d *Dispatcher) countersFrame(id, number uint64, f *fdipc.Frame) {
	if len(f.Handles) != 1 {
		return
	}
	c, err := openSharedCounters(f.Handles[0])
	d.mu.Lock()
	w := d.balancer.workers[id]
	if w == nil || err != nil || w.memberships[number] == nil || w.memberships[number].counters != nil {
		d.mu.Unlock()
		return // without it, the worker's ends are known by its frames alone
	}
	seat := w.memberships[number]
	seat.counters = c
	link, enough := w.link, seat.listener != nil && !seat.listener.needsEnds
	d.mu.Unlock()
	if link != nil && enough {
		_ = link.TrySend(&fdipc.Frame{Kind: KindCounters, Target: number})
	}
}

// stopReports tells the workers that were there before the listener to spare their reports.
func (d *Dispatcher) stopReports(l *listenerState) {
	if l.needsEnds {
		return
	}
	var links []*fdipc.Conn
	d.mu.Lock()
	for _, m := range l.members {
		if m.counters != nil && m.worker.link != nil {
			links = append(links, m.worker.link)
		}
	}
	d.mu.Unlock()
	for _, c := range links {
		_ = c.TrySend(&fdipc.Frame{Kind: KindCounters, Target: l.number})
	}
}
