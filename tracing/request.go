package tracing

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"
)

// A connection may carry many requests. The first continues the connection's
// trace. If all did, the trace of a keep-alive connection would grow without
// bound and its times would say nothing, so each later one is a root of its own,
// decided on by the sampler, with a link to the connection. One that comes with
// a client's trace is the client's child, with the same link.
//
// Instrumentation such as otelhttp starts a request's span from the provider that
// the span in the context names. What is in the context is therefore connSpan,
// whose provider is requests, which puts this rule into the options.

// connSpan is the connection's span as a request's context has it.
type connSpan struct {
	trace.Span
	requests *requests
}

func (s connSpan) TracerProvider() trace.TracerProvider { return s.requests }

// requests is the provider for the spans of one connection's requests.
type requests struct {
	trace.TracerProvider
	conn  trace.SpanContext
	begun atomic.Bool // the first request has come
}

func (r *requests) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	return requestTracer{r.TracerProvider.Tracer(name, opts...), r}
}

type requestTracer struct {
	trace.Tracer
	requests *requests
}

// Start starts a span. Only a SERVER span is a request.
func (t requestTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	cfg := trace.NewSpanStartConfig(opts...)
	if cfg.SpanKind() != trace.SpanKindServer {
		return t.Tracer.Start(ctx, name, opts...)
	}
	later := t.requests.begun.Swap(true)
	// Not Equal: some instrumentation marks what it finds in the context as remote.
	parent := trace.SpanContextFromContext(ctx)
	fromClient := parent.TraceID() != t.requests.conn.TraceID() || parent.SpanID() != t.requests.conn.SpanID()
	if later || fromClient {
		opts = append(opts[:len(opts):len(opts)], trace.WithLinks(trace.Link{SpanContext: t.requests.conn}))
	}
	if later && !fromClient {
		opts = append(opts, trace.WithNewRoot())
	}
	return t.Tracer.Start(ctx, name, opts...)
}
