package tracing

import (
	"context"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"
)

// A connection may carry many requests. The first continues the connection's trace. If all did, the
// trace of a keep-alive connection would grow without bound and its times would mean nothing. So
// each later request is a new root, for which the sampler decides, with a link to the connection. A
// request that comes with a client's trace is a child of the client's span, with the same link.
//
// Instrumentation such as otelhttp starts a request's span from the provider of the span in
// the context. Therefore connSpan is in the context. Its provider is requests, which adds
// the options for this rule.

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
