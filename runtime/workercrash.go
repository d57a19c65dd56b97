package coppice

import (
	"context"
	"slices"
	"strings"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// crashContext is what a worker had when it ended. It is read before other processes learn of the
// end, which changes it.
type crashContext struct {
	held  []ListenerConns
	asked []string
}

// crashContextOf returns the crashContext of the worker at an actor address, which is its id. It
// asks the listener process, so it is called only for Hooks.Crash.
func crashContextOf(id int, address string, system *actors.System, sockets *registry.Table) (b crashContext) {
	byName := system.Lookup("").Address
	for _, pid := range system.AskedAt(address) {
		name := pid.Id
		if pid.Address != byName {
			name = pid.Address + "/" + name
		}
		b.asked = append(b.asked, name)
	}
	slices.Sort(b.asked)
	ctx, cancel := context.WithTimeout(context.Background(), heldTimeout)
	defer cancel()
	stats, err := sockets.Stats(ctx)
	if err != nil {
		return b // there is no listener process, or it is busy
	}
	for _, l := range stats {
		for _, at := range l.Workers {
			if open := at.Counts.Open(); at.Worker.ID == uint64(id) && open+at.Counts.Offered > 0 {
				b.held = append(b.held, ListenerConns{l.Name, open, at.Counts.Offered})
			}
		}
	}
	return b
}

// maxServing is how many requests a report has.
const maxServing = 64

// served adds what the worker was serving.
func (r *CrashReport) served(requests []inflight.Served) {
	for _, q := range requests[:min(len(requests), maxServing)] {
		r.Serving = append(r.Serving, ServedRequest{strings.ToValidUTF8(q.Key, "?"), max(0, r.Time.Sub(q.Began)), q.TraceID()})
	}
	r.More = len(requests) - len(r.Serving)
}

// report returns the report of the crash of a worker, which still lacks what its backend adds.
// spans are those that it had open.
func (b crashContext) report(process Identity, role string, reason supervisor.Reason, exit Exit, spans []tracing.OpenSpan) CrashReport {
	r := CrashReport{
		Identity: process, Role: role,
		Reason: reason, Exit: exit, Conns: b.held, Asked: b.asked,
	}
	for _, s := range spans {
		id := s.TraceID().String()
		if !slices.Contains(r.Traces, id) {
			r.Traces = append(r.Traces, id)
		}
		r.Spans = append(r.Spans, LostSpan{supervisor.Cut(s.Name), s.Start, id, s.SpanID().String()})
	}
	return r
}
