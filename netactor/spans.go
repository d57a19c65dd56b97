package netactor

import (
	"errors"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// ticketTrace holds the spans of one connection in the listener process.
type ticketTrace struct {
	pool    string
	accept  tracing.Span
	queue   tracing.Span // while it waits again
	handoff tracing.Span // the last; while it is offered
}

var errDropped = errors.New("netactor: listener ended before a worker took the connection")

// traceAccepted starts the connection's trace. Off, it does nothing.
func (t *ticket) traceAccepted(a *acceptor) {
	tracer := a.d.cfg.Tracer
	if tracer == nil {
		return
	}
	t.trace = &ticketTrace{pool: a.pool, accept: tracer.Accept(tracing.Accepted{
		Listener: a.l.name, Transport: a.network, Peer: t.peer,
	})}
	// A trace that is not sampled goes along too: its decision holds in the worker.
	t.h.Trace = t.trace.accept.Carrier()
}

// traceOffer starts the span of an offer to t.s.
func (t *ticket) traceOffer() {
	tr := t.trace
	if tr == nil || !tr.accept.Sampled() {
		return
	}
	tr.queue.End()
	w := t.s.a.worker
	tr.handoff = tr.accept.Handoff(tracing.Handoff{
		Pool: w.Pool, Target: w.Name, Incarnation: w.Incarnation, Kind: "conn", Repeats: tr.handoff,
	})
	t.h.Trace = tr.handoff.Carrier()
}

// traceSettled ends the span of an offer.
func (t *ticket) traceSettled(o fdipc.Outcome, reason uint8) {
	tr := t.trace
	if tr == nil || !tr.accept.Sampled() {
		return
	}
	switch o {
	case fdipc.Claimed:
		tr.handoff.EndOutcome(tracing.Claimed, "")
		tr.accept.End()
		return
	case fdipc.Refused:
		tr.handoff.EndOutcome(tracing.Refused, reasonText(reason))
	default:
		tr.handoff.EndOutcome(tracing.Returned, "")
	}
	tr.queue = tr.accept.Queue(tr.pool)
}

// traceDropped ends the trace of a connection that no worker took.
func (t *ticket) traceDropped() {
	if tr := t.trace; tr != nil {
		tr.queue.End()
		tr.accept.EndError(errDropped)
	}
}

// reasonText says why a handle was refused, in few words.
func reasonText(reason uint8) string {
	switch reason {
	case fdipc.ReasonNoFiles:
		return "out of descriptors"
	case fdipc.ReasonOverload, ReasonFull:
		return "queue full"
	case fdipc.ReasonClosed, ReasonClosed:
		return "listener closed"
	}
	return "refused"
}

// suspendedText says why a worker is left alone.
func suspendedText(reason uint8) string {
	if reason == fdipc.ReasonNone {
		return "stalled"
	}
	return reasonText(reason)
}
