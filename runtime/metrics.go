package coppice

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/tracing"
)

// measurePools emits the sizes of the tree's pools, the states of their workers, and what the
// groups of processes use.
func measurePools(meter *tracing.Meter, pools *pools, tree func() Tree, groups *groupMetrics) {
	meter.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		for _, c := range pools.list() {
			if c.kind.ofConfig {
				emit(tracing.PoolSize, int64(c.size()), tracing.KeyPool.String(c.path))
			}
		}
		countWorkers(tree(), "", emit)
		groups.measure(tree, emit)
	})
}

// countReload counts a reload that has ended with err.
func (rt *Runtime) countReload(err error) {
	if err == nil {
		rt.lifecycle.Count(tracing.Reloads, 1)
		return
	}
	rt.lifecycle.Count(tracing.Reloads, 1, tracing.KeyErrorType.String(fmt.Sprintf("%T", err)))
}

func countWorkers(t Tree, path string, emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
	for _, c := range t.Children {
		at := c.Name
		if path != "" {
			at = path + "/" + c.Name
		}
		if c.Role != RolePool {
			countWorkers(c, at, emit)
			continue
		}
		for _, w := range workersOf(c, at) {
			emit(tracing.PoolWorkers, 1, tracing.KeyPool.String(at), tracing.KeyState.String(w))
		}
	}
}

// workersOf returns the state of each worker of a pool, including those without a slot. A slot
// whose worker is starting counts as that worker.
func workersOf(pool Tree, path string) (states []string) {
	starting := map[string]bool{}
	for _, w := range slices.Backward(pool.Children) { // workers without a slot come after the slots
		name, state := w.Name, w.State
		if !strings.HasPrefix(name, path+"/") {
			name = path + "/" + name // a slot that has never had a worker
		}
		if w.Role == RoleSpare {
			states = append(states, string(w.Role))
			continue
		}
		if state == StateStarting || state == StateRestarting {
			if starting[name] {
				continue
			}
			starting[name] = state == StateStarting
		}
		states = append(states, string(state))
	}
	return states
}

// telemetryInfo returns the parts of an event's Info that the spans of the tree use.
func telemetryInfo(v any) telemetry.EventInfo {
	switch i := v.(type) {
	case info:
		return telemetry.EventInfo{ID: i.ID, PID: i.PID}
	case Event:
		c := telemetry.PoolChange{
			Path: cmp.Or(i.Name, i.Path), Why: i.Why, ID: i.ID, PID: i.PID, Generation: i.Generation,
			Took: i.Took, Reason: i.Reason,
		}
		switch i.Kind {
		case WorkerReplaced, SpareReady:
			c.Kind = telemetry.WorkerStarted
		case WorkerFailed:
			c.Kind = telemetry.WorkerFailed
		case DrainBegan:
			c.Kind = telemetry.DrainBegan
		case WorkerDrained:
			c.Kind = telemetry.DrainEnded
		default: // no span
		}
		return telemetry.EventInfo{Pool: c}
	}
	return telemetry.EventInfo{}
}
