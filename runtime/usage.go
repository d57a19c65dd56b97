package coppice

import (
	"os"
	"sync"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/tracing"
)

// listenerSum is a metric that adds up a count of listeners.
type listenerSum struct {
	*tracing.Instrument
	outcome string // of a parking; "" if the metric has none
	count   func(netactor.Counts) uint64
	growing
}

func newListenerSums() (all []*listenerSum) {
	add := func(i *tracing.Instrument, outcome string, count func(netactor.Counts) uint64) {
		all = append(all, &listenerSum{i, outcome, count, growing{sums: map[string]int64{}}})
	}
	add(tracing.TurnedAway, "", netactor.Counts.TurnedAway)
	add(tracing.GivenBack, "", func(c netactor.Counts) uint64 { return c.GivenBack })
	add(tracing.ParkingEnds, "resumed", func(c netactor.Counts) uint64 { return c.Resumed })
	add(tracing.ParkingEnds, "left", func(c netactor.Counts) uint64 { return c.ParkedLeft })
	add(tracing.ParkingEnds, "idle", func(c netactor.Counts) uint64 { return c.ParkedIdle })
	add(tracing.ParkingEnds, "over", func(c netactor.Counts) uint64 { return c.ParkedOver })
	add(tracing.ParkingEnds, "passed", func(c netactor.Counts) uint64 { return c.Passed })
	return all
}

// measureListeners emits the sums, and how many connections are parked. Those of a listener that is
// gone end.
func measureListeners(stats []netactor.ListenerStats, sums []*listenerSum, emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
	parked := map[string]int64{} // by name
	for _, l := range stats {
		parked[l.Name] += int64(l.Counts.Parked)
	}
	for name, n := range parked {
		emit(tracing.Parked, n, tracing.KeyListener.String(name))
	}
	for _, sum := range sums {
		now := map[uint64]counted{} // by the number of the socket
		for _, l := range stats {
			now[l.Number] = counted{l.Name, int64(sum.count(l.Counts))}
		}
		for name, n := range sum.add(now) {
			labels := []attribute.KeyValue{tracing.KeyListener.String(name)}
			if sum.outcome != "" {
				labels = append(labels, tracing.KeyParkingOutcome.String(sum.outcome))
			}
			if _, there := parked[name]; there {
				emit(sum.Instrument, n, labels...)
			} else {
				delete(sum.sums, name)
			}
		}
	}
}

// measureProcesses emits the generation, and what each process of the tree uses and serves. The
// attributes are the names of pools, places and listeners, of which there are no more after a
// thousand restarts. Two processes that have a name in a reload are added up.
func measureProcesses(meter *tracing.Meter, gens *generations, children *children, sockets *registry.Table) {
	var mu sync.Mutex // held for a whole collection
	cpu, listeners := growing{sums: map[string]int64{}}, newListenerSums()
	meter.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		mu.Lock()
		defer mu.Unlock()
		emit(tracing.Generation, int64(gens.now()))
		open := map[uint64]int64{} // by the ID of the worker
		stats, _ := sockets.LastStats()
		measureListeners(stats, listeners, emit)
		for _, l := range stats {
			for _, w := range l.Workers {
				open[w.Worker.ID] += int64(w.Counts.Open())
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
