package dispatch

import (
	"errors"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/tracing"
)

// connTrace holds the spans of one connection in the listener process.
type connTrace struct {
	pool    string
	accept  tracing.Span
	queue   tracing.Span // open while no worker has the connection
	handoff tracing.Span // of the last offer; open while that is not settled

	meter   *tracing.HandoffMeter // nil when metrics are off
	at      time.Time             // when the connection was accepted
	waiting time.Time             // since when no worker has it; zero while a worker has it
	queued  time.Duration         // how long no worker had it, until the last offer
	offered time.Time             // when it was last offered
	revoked uint64                // the link's Stats().Revoked when it was last offered
}

// The reasons why no worker took a connection.
var (
	errDropped    = errors.New("netactor: listener ended before a worker took the connection")
	errReset      = errors.New("netactor: client reset the connection before a worker took it")
	errTurnedAway = errors.New("netactor: connection was turned away at a limit")
)

// traceAccepted starts the connection's trace. It does nothing if tracing is off.
func traceAccepted(p *balance.PendingConn, a *acceptor) {
	tracer := a.dispatcher.cfg.Tracer
	if tracer == nil {
		if p.Parked {
			p.Handle.Trace = fdipc.TraceContext{}
		}
		return
	}
	tr := &connTrace{pool: a.pool, meter: tracer.Handoffs(a.pool), accept: tracer.Accept(tracing.AcceptSpan{
		Listener: a.listener.Name, Transport: a.network, Peer: p.Peer, Before: p.Handle.Trace,
	})}
	p.Trace = tr
	if tr.meter != nil {
		tr.at = time.Now()
		tr.waiting = tr.at
	}
	tr.queue = tr.accept.Queue(tr.pool)
	// The carrier of a trace that is not sampled is sent too: its decision holds in the worker.
	p.Handle.Trace = tr.accept.Carrier()
}

// traceOf returns the spans of a connection; nil if tracing is off.
func traceOf(p *balance.PendingConn) *connTrace {
	tr, _ := p.Trace.(*connTrace)
	return tr
}

// idle reports whether neither a meter nor a sampled trace records this connection.
func (tr *connTrace) idle() bool { return tr == nil || tr.meter == nil && !tr.accept.Sampled() }

// traceOffer starts the span of an offer to p.OfferedTo.
func traceOffer(p *balance.PendingConn) {
	tr := traceOf(p)
	if tr.idle() {
		return
	}
	tr.offered = time.Now()
	if tr.meter != nil {
		tr.queued += tr.offered.Sub(tr.waiting)
	}
	tr.revoked = p.Via.Stats().Revoked
	if !tr.accept.Sampled() {
		return
	}
	tr.queue.End()
	w := p.OfferedTo.Worker.Worker
	tr.handoff = tr.accept.Handoff(tracing.Handoff{
		Pool: w.Pool, Target: w.Name, Incarnation: w.Incarnation, Kind: "conn", Repeats: tr.handoff,
	})
	p.Handle.Trace = tr.handoff.Carrier()
}

// traceSettled ends the span of an offer, when the worker answered it.
func traceSettled(p *balance.PendingConn, o fdipc.Outcome, reason uint8) {
	tr := traceOf(p)
	if tr.idle() {
		return
	}
	at := tr.settledAt(p.Handle.ResolvedAt())
	switch o {
	case fdipc.Claimed:
		if tr.meter != nil {
			tr.meter.Claimed(at.Sub(tr.at), tr.queued, tr.accept)
		}
		tr.handoff.EndOutcome(at, tracing.Claimed, "")
		tr.accept.EndAt(at, "", "")
		return
	case fdipc.Refused:
		tr.meter.Failed(tracing.Refused, balance.ReasonText(reason))
		tr.handoff.EndOutcome(at, tracing.Refused, balance.ReasonText(reason))
	default:
		why := returnedText(p)
		tr.meter.Failed(tracing.Returned, why)
		tr.handoff.EndOutcome(at, tracing.Returned, why)
	}
	if tr.meter != nil {
		tr.waiting = at
	}
	tr.queue = tr.accept.Queue(tr.pool)
}

// settledAt returns said, the time of the worker's answer, if it is possible: after the offer, and
// not in the future. Otherwise it returns the current time.
func (tr *connTrace) settledAt(said time.Time) time.Time {
	now := time.Now()
	if said.Before(tr.offered) || said.After(now) {
		return now
	}
	return said
}

// traceUnserved ends the trace of a connection that no worker took.
func traceUnserved(p *balance.PendingConn, why error) {
	if tr := traceOf(p); tr != nil {
		tr.queue.End()
		tr.accept.EndError(why)
	}
}

// returnedText returns why an offer came back without an answer from the worker: the link has
// revoked an offer since, or it has ended.
func returnedText(p *balance.PendingConn) string {
	if p.Via.Stats().Revoked > traceOf(p).revoked {
		return "not claimed in time"
	}
	return "worker ended"
}
