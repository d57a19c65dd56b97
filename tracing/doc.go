// Package tracing names the spans of Coppice and carries their context across processes.
// It uses OpenTelemetry's API modules only. The SDK and the exporters are in package
// tracing/otlp, which a program imports if it wants them:
//
//	import _ "github.com/coppice-go/coppice/tracing/otlp"
//
// # The trace of a connection
//
//	accept     listener  INTERNAL  a new root: no remote parent is known yet
//	├ queue    listener  INTERNAL  waits for a worker with credit
//	└ hand-off listener  PRODUCER  offered until claimed, refused or returned
//	  └ claim  worker    CONSUMER  received until Accept returns it
//	    └ serve worker   INTERNAL  until the connection is closed
//
// A hand-off that comes back is followed by a second hand-off under the same
// accept, with a link to the first. The names and attributes stand in names.go.
//
// In the listener:
//
//	accept := tracer.Accept(tracing.AcceptSpan{Listener: "http", Peer: peer})
//	handoff := accept.Handoff(tracing.Handoff{Pool: "web", Target: "web/0", Kind: "conn"})
//	frame.Trace = handoff.Carrier()
//	…
//	handoff.EndOutcome(at, tracing.Claimed, "") // when the worker claimed it
//	accept.EndAt(at, "", "")
//
// In the worker:
//
//	claim := tracer.Claim(frame.Trace, tracing.Claim{Kind: "conn"})
//	serve := claim.Serve()
//	claim.EndAt(at, "", "") // the same time
//	…
//	serve.End() // when the connection is closed
//
// # Cost
//
// When tracing is off (a nil *Tracer) every call returns at once and allocates nothing.
// When a trace is not sampled, only the root costs something: the sampler's decision.
// Every child span checks the sampled flag first, and allocates nothing if it is not set.
//
// The counter and the two histograms of a hand-over cost less than 100 ns together, and no
// allocation unless the trace is sampled.
//
// # Requests
//
// [ConnContext] makes a request's span part of the connection's trace; later
// requests of the same connection are roots that link to it. Package grpctrace does
// the same for gRPC. [LogHandler] puts the trace's id into log records.
//
// # Lives of processes
//
// Package runtime records what its supervisors decide as spans: start, stop, restart, exit,
// give up, reload, scale. See [Tracer.Begin].
//
// # Processes
//
// [Start] makes the one [Pipeline] of a process from the registered [Backend]. The master's
// pipeline holds the only connection to a collector. A child's pipeline sends its finished spans,
// as OTLP bytes, to the master, which gives them to [ChildTelemetry].Receive. Less formally: a
// worker knows neither the collector's address nor its password.
package tracing
