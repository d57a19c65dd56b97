// Package tracing names the spans of Coppice and carries their context across processes.
// It uses OpenTelemetry's API modules only. The SDK and the exporters are in package
// tracing/otlp, which a program imports if it wants them:
//
//	import _ "github.com/coppice-go/coppice/tracing/otlp"
//
// # The trace of a connection
//
// [Tracer.Accept] begins it in the listener process; the [Span.Carrier] of a hand-off travels with
// the connection, and [Tracer.Claim] goes on from it in the worker. docs/observability.md has the
// spans, names.go their names and attributes.
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
// # Processes
//
// [Start] makes the one [Pipeline] of a process from the registered [Backend]. The master's
// pipeline holds the only connection to a collector. A child's pipeline sends its finished spans,
// as OTLP bytes, to the master, which gives them to [ChildTelemetry].Receive. Less formally: a
// worker knows neither the collector's address nor its password.
package tracing
