package coppice

import (
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

// growing adds up, by name, how counts have grown of processes and sockets that come and go.
type growing struct {
	last map[uint64]int64 // at the last collection, by a number that is never used again
	sums map[string]int64 // by name
}

type counted struct {
	name string
	n    int64
}

// add adds the growth since the last collection to the sums. A count that is less began anew.
func (g *growing) add(now map[uint64]counted) map[string]int64 {
	last := g.last
	g.last = map[uint64]int64{}
	for number, is := range now {
		was := last[number]
		if is.n < was {
			was = 0
		}
		g.sums[is.name] += is.n - was
		g.last[number] = is.n
	}
	return g.sums
}

// measureProcesses emits the generation, and what each process of the tree uses and serves. The
// attributes are the names of pools, places and listeners, of which there are no more after a
// thousand restarts. Two processes that have a name in a reload are added up.
func measureProcesses(meter *tracing.Meter, gens *generations, children *children, sockets *registry.Table) {
	var mu sync.Mutex // held for a whole collection
	cpu, turned := growing{sums: map[string]int64{}}, growing{sums: map[string]int64{}}
	meter.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		mu.Lock()
		defer mu.Unlock()
		emit(tracing.Generation, int64(gens.now()))
		open, now := map[uint64]int64{}, map[uint64]counted{} // by the ID of the worker, by the number of the socket
		named := map[string]bool{}
		stats, _ := sockets.LastStats()
		for _, l := range stats {
			now[l.Number], named[l.Name] = counted{l.Name, int64(l.Counts.TurnedAway())}, true
			for _, w := range l.Workers {
				open[w.Worker.ID] += int64(w.Counts.Open())
			}
		}
		for name, n := range turned.add(now) {
			if named[name] {
				emit(tracing.TurnedAway, n, tracing.KeyListener.String(name))
			} else {
				delete(turned.sums, name)
			}
		}
		live, pools := map[uint64]counted{}, map[string]string{} // pools by place
		add := func(pool, place string, id uint64, pid int) {
			pools[place] = pool
			labels := []attribute.KeyValue{tracing.KeyPool.String(pool), tracing.KeyChildPath.String(place)}
			if n, ok := open[id]; ok {
				emit(tracing.ConnectionsOpen, n, labels...)
			}
			if u, ok := usageOf(pid); ok {
				emit(tracing.ProcessMemory, u.memory, labels...)
				emit(tracing.ProcessFiles, u.files, labels...)
				live[id] = counted{place, u.cpu}
			}
		}
		add("", childproto.MasterName, 0, os.Getpid())
		for _, w := range children.all() {
			add(w.driver.path, w.name(), uint64(w.hello.ID), w.backend.pid())
		}
		for place, ns := range cpu.add(live) {
			if pool, ok := pools[place]; ok { // the sum of another stays as it was
				emit(tracing.ProcessCPU, ns, tracing.KeyPool.String(pool), tracing.KeyChildPath.String(place))
			}
		}
	})
}
