package netactor

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/coppice-go/coppice/fdipc"
)

// sharedCounters is a page of counters that a worker shares with the listener process, one
// for each listener that it has joined. It outlives the worker: what a worker had
// closed when it was killed is known to the last connection, and without a frame for each.
//
// The worker writes, the listener process reads and trusts nothing in it. Layout,
// in 64-bit words of the machine's own byte order:
//
//	0  magic
//	1  connections closed since it joined
//	2  of what it accepted, how long the hand-over took: a Histogram
//
// A nil page of counters counts nothing.
type sharedCounters struct{ words []atomic.Uint64 }

const (
	countersMagic  = 0x3145484332544543
	countersClosed = 1
	countersTimes  = 2
	countersWords  = countersTimes + len(bounds) + 1
	countersBytes  = 4096
)

func countersAt(b []byte) *sharedCounters {
	return &sharedCounters{unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(b))), countersWords)}
}

// closed is how many connections the worker has closed.
func (c *sharedCounters) closed() (n uint64, ok bool) {
	if c == nil {
		return 0, false
	}
	n = c.words[countersClosed].Load()
	runtime.KeepAlive(c)
	return n, true
}

// countClosed counts a connection that was closed.
func (c *sharedCounters) countClosed() {
	if c != nil {
		c.words[countersClosed].Add(1)
		runtime.KeepAlive(c)
	}
}

// countClaimed counts a hand-over.
func (c *sharedCounters) countClaimed(bucket int) {
	if c != nil {
		c.words[countersTimes+bucket].Add(1)
		runtime.KeepAlive(c)
	}
}

// latency returns how long the hand-overs took.
func (c *sharedCounters) latency() (h Histogram) {
	if c != nil {
		for i := range h {
			h[i] = c.words[countersTimes+i].Load()
		}
		runtime.KeepAlive(c)
	}
	return h
}

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

// refresh reads what the worker of s has closed, where it does not report it.
func (b *balancer) refresh(m *membership) {
	c := &m.counts
	n, ok := m.finishedByWorker()
	if !ok || m.listener.needsEnds || n <= c.Finished || n-c.Finished > uint64(m.load()) {
		return
	}
	m.listener.load -= int(n - c.Finished)
	m.worker.loadSinceReport -= int(n - c.Finished)
	c.Finished = n
	b.update(m)
}
