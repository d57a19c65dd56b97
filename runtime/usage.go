package coppice

import (
	"maps"
	"os"
	"sync"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/tracing"
)

// usage is what a process uses.
type usage struct {
	memory int64 // that it costs, bytes; see ownMemory
	cpu    int64 // so far, ns
	files  int64 // open descriptors
}

// measured are the sums that only grow of counts that begin anew with a process. mu is held for a
// whole collection.
type measured struct {
	mu       sync.Mutex
	live     map[int]spent    // by pid, at the last collection
	ended    map[string]int64 // CPU time by place, of the processes that have ended
	turned   map[string]int64 // by the name of the listener, at the last collection
	turnedBy map[string]int64 // likewise, by listener processes before the present one
}

type spent struct {
	place  string
	cpu    int64
	before int64 // of cpu: counted at the place that a spare had
}

// cpu returns the CPU time by place, after a collection that has found live.
func (m *measured) cpu(live map[int]spent) map[string]int64 {
	for pid, was := range m.live {
		now, ok := live[pid]
		switch {
		case !ok || now.cpu < was.cpu: // another process has the pid
			m.ended[was.place] += was.cpu - was.before
			continue
		case now.place == was.place:
			now.before = was.before
		default:
			m.ended[was.place] += was.cpu - was.before
			now.before = was.cpu
		}
		live[pid] = now
	}
	m.live = live
	sums := maps.Clone(m.ended)
	for _, s := range live {
		sums[s.place] += s.cpu - s.before
	}
	return sums
}

// turnedAway returns the connections turned away by name of the listener, of which the present
// listener process has counted now.
func (m *measured) turnedAway(now map[string]int64) map[string]int64 {
	sums := map[string]int64{}
	for name, n := range now {
		if n < m.turned[name] {
			m.turnedBy[name] += m.turned[name]
		}
		sums[name] = m.turnedBy[name] + n
	}
	maps.DeleteFunc(m.turnedBy, func(name string, _ int64) bool { _, ok := now[name]; return !ok })
	m.turned = now
	return sums
}

// measureProcesses emits the generation, and what each process of the tree uses and serves. The
// attributes are the names of pools, places and listeners, of which there are no more after a
// thousand restarts. Two processes that have a name in a reload are added up.
func measureProcesses(meter *tracing.Meter, gens *generations, children *children, sockets *registry.Table) {
	m := &measured{ended: map[string]int64{}, turnedBy: map[string]int64{}}
	meter.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		m.mu.Lock()
		defer m.mu.Unlock()
		emit(tracing.Generation, int64(gens.now()))
		open, turned := map[uint64]int64{}, map[string]int64{} // by the ID of the worker, by listener
		stats, _ := sockets.LastStats()
		for _, l := range stats {
			turned[l.Name] += int64(l.Counts.TurnedAway())
			for _, w := range l.Workers {
				open[w.Worker.ID] += int64(w.Counts.Open())
			}
		}
		for name, n := range m.turnedAway(turned) {
			emit(tracing.TurnedAway, n, tracing.KeyListener.String(name))
		}
		live, pools := map[int]spent{}, map[string]string{} // pools by place
		add := func(pool, place string, id, pid int) {
			pools[place] = pool
			labels := []attribute.KeyValue{tracing.KeyPool.String(pool), tracing.KeyChildPath.String(place)}
			if n, ok := open[uint64(id)]; ok {
				emit(tracing.ConnectionsOpen, n, labels...)
			}
			if u, ok := usageOf(pid); ok {
				emit(tracing.ProcessMemory, u.memory, labels...)
				emit(tracing.ProcessFiles, u.files, labels...)
				live[pid] = spent{place: place, cpu: u.cpu}
			}
		}
		add("", childproto.MasterName, 0, os.Getpid())
		for _, w := range children.all() {
			add(w.driver.path, w.name(), w.hello.ID, w.backend.pid())
		}
		for place, ns := range m.cpu(live) {
			if pool, ok := pools[place]; ok { // the sum of another stays as it was
				emit(tracing.ProcessCPU, ns, tracing.KeyPool.String(pool), tracing.KeyChildPath.String(place))
			}
		}
	})
}
