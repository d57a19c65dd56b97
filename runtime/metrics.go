package coppice

import (
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// transportStats are the channels of one process, for what is counted of them. A channel
// that has ended stays in the sum.
type transportStats struct {
	mu    sync.Mutex
	conns []*fdipc.Conn
	past  fdipc.Stats // of channels that have ended
}

// add counts a channel too. Those that have ended are let go of: nobody may ever ask
// for the total, and a process may see the end of a great many.
func (w *transportStats) add(c *fdipc.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foldEndedLocked()
	w.conns = append(w.conns, c)
}

// total adds up all channels so far.
func (w *transportStats) total() fdipc.Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foldEndedLocked()
	sum := w.past
	for _, c := range w.conns {
		addStats(&sum, c.Stats())
	}
	return sum
}

// foldEndedLocked keeps of the channels that have ended what they counted.
func (w *transportStats) foldEndedLocked() {
	w.conns = slices.DeleteFunc(w.conns, func(c *fdipc.Conn) bool {
		over := closed(c)
		if over { // its counters stand still
			addStats(&w.past, c.Stats())
		}
		return over
	})
}

func addStats(sum *fdipc.Stats, s fdipc.Stats) {
	sum.FramesSent += s.FramesSent
	sum.FramesReceived += s.FramesReceived
	sum.BytesSent += s.BytesSent
	sum.BytesReceived += s.BytesReceived
	sum.Claimed += s.Claimed
	sum.Refused += s.Refused
	sum.Returned += s.Returned
}

// registerMetrics emits what the runtime knows of a process: its channels and mailboxes.
func registerMetrics(m *tracing.Meter, w *transportStats, system *actors.System) {
	if m == nil {
		return
	}
	sent, received := tracing.KeyDirection.String("transmit"), tracing.KeyDirection.String("receive")
	outcome := func(o tracing.Outcome) attribute.KeyValue { return tracing.KeyHandoffOutcome.String(string(o)) }
	m.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		s := w.total()
		emit(tracing.TransportBytes, int64(s.BytesSent), sent)
		emit(tracing.TransportBytes, int64(s.BytesReceived), received)
		emit(tracing.TransportFrames, int64(s.FramesSent), sent)
		emit(tracing.TransportFrames, int64(s.FramesReceived), received)
		emit(tracing.TransportFDs, int64(s.Claimed), outcome(tracing.Claimed))
		emit(tracing.TransportFDs, int64(s.Refused), outcome(tracing.Refused))
		emit(tracing.TransportFDs, int64(s.Returned), outcome(tracing.Returned))
		emit(tracing.MailboxDepth, int64(system.Stats().Waiting))
	})
}

// measurePools emits the sizes of the tree's pools and what their workers do.
func (rt *Runtime) measurePools() {
	rt.pipeline.Meter().Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		for _, c := range rt.pools.list() {
			if c.role == childproto.RoleWorker {
				emit(tracing.PoolSize, int64(rt.pools.size(c)), tracing.KeyPool.String(c.path))
			}
		}
		rt.countWorkers(rt.Snapshot(), "", emit)
	})
}

func (rt *Runtime) countWorkers(t Tree, path string, emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
	for _, c := range t.Children {
		at := c.Name
		if path != "" {
			at = path + "/" + c.Name
		}
		if c.Role != "pool" {
			rt.countWorkers(c, at, emit)
			continue
		}
		for _, w := range workersOf(c, at) {
			emit(tracing.PoolWorkers, 1, tracing.KeyPool.String(at), tracing.KeyState.String(w))
		}
	}
}

// workersOf returns the state of each worker of a pool, those included that have no
// slot. A slot that waits for its worker to start is that worker.
func workersOf(pool Tree, path string) (states []string) {
	starting := map[string]bool{}
	for _, w := range slices.Backward(pool.Children) { // who has no slot stands behind the slots
		name, state := w.Name, w.State
		if !strings.HasPrefix(name, path+"/") {
			name = path + "/" + name // a slot that has never had a worker
		}
		if w.Role == "spare" {
			states = append(states, w.Role)
			continue
		}
		switch state {
		case supervisor.Starting.String():
			if starting[name] {
				continue
			}
			starting[name] = true
		case supervisor.Restarting.String():
			if starting[name] {
				continue
			}
		}
		states = append(states, state)
	}
	return states
}
