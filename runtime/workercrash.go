package coppice

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/trace"
)

// crashContext is what a worker had when it ended. It is read before other processes learn of the
// end, which changes it.
type crashContext struct {
	held  []ListenerConns
	asked []string
}

// crashContext returns the worker's crashContext. Because it asks the listener process, it is
// called only for Hooks.Crash.
func (w *poolWorker) crashContext() (b crashContext) {
	if w.driver.crashes == nil || !w.driver.kind.ofConfig {
		return b
	}
	byName := w.driver.children.system.Lookup("").Address
	for _, pid := range w.driver.children.system.AskedAt(w.address()) {
		name := pid.Id
		if pid.Address != byName {
			name = pid.Address + "/" + name
		}
		b.asked = append(b.asked, name)
	}
	slices.Sort(b.asked)
	ctx, cancel := context.WithTimeout(context.Background(), heldTimeout)
	defer cancel()
	stats, err := w.driver.children.sockets.Stats(ctx)
	if err != nil {
		return b // there is no listener process, or it is busy
	}
	for _, l := range stats {
		for _, at := range l.Workers {
			if open := at.Counts.Open(); at.Worker.ID == uint64(w.hello.ID) && open+at.Counts.Offered > 0 {
				b.held = append(b.held, ListenerConns{l.Name, open, at.Counts.Offered})
			}
		}
	}
	return b
}

// reportCrash reports the end of the worker if it is a crash.
func (w *poolWorker) reportCrash(b crashContext, spans []trace.SpanContext) {
	if w.driver.crashes == nil || !isCrash(w.reason, w.exit) {
		return
	}
	at := w.assigned.Load()
	r := CrashReport{
		Name: at.name, Role: string(w.hello.Role), ID: w.hello.ID, Slot: at.slot,
		Incarnation: at.incarnation, Generation: w.hello.Generation,
		Ready: isClosed(w.ready), Reason: w.reason, Exit: w.exit, Conns: b.held, Asked: b.asked,
	}
	for _, s := range spans {
		if id := s.TraceID().String(); !slices.Contains(r.Traces, id) {
			r.Traces = append(r.Traces, id)
		}
	}
	w.backend.fillReport(&r)
	w.driver.crashes.report(r)
}
