package tracing

import (
	"context"
	"net"

	"go.opentelemetry.io/otel/trace"
)

// TracedConn is a connection whose trace began before it was claimed. The connections that
// Coppice's listeners return implement it.
type TracedConn interface {
	net.Conn

	// TraceSpan returns the serve span of the connection; the zero Span when tracing is off.
	TraceSpan() Span
}

// ConnContext returns ctx with the span of c, for http.Server.ConnContext: spans that a
// handler starts become part of the connection's trace. If neither c nor the connection
// that it wraps (NetConn, as under TLS) is a [TracedConn], ctx is returned unchanged.
//
// The TracerProvider of the span in the context is Coppice's, also when the trace is not
// sampled. Instrumentation such as otelhttp takes its provider from the span in the context;
// it would otherwise use the no-op one and lose its spans.
//
// That provider makes the SERVER span of the first request a child of the connection's
// span. The SERVER span of a later request is a root, or a child of the client's span if the
// client sent its trace, with a link to the connection's.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return RequestContext(ctx, SpanOf(c))
}

// RequestContext is ConnContext for a server that has no connection when it makes its
// contexts. Call it once for each connection.
func RequestContext(ctx context.Context, s Span) context.Context {
	if s.t == nil || s.t.provider == nil {
		return ctx
	}
	ctx = ContextWithSpan(ctx, s)
	return trace.ContextWithSpan(ctx, connSpan{trace.SpanFromContext(ctx), &requests{TracerProvider: s.t.provider, conn: s.Context()}})
}

// SpanOf returns the span of c, or of the connection that c wraps if c has a NetConn method,
// as tls.Conn has; else the zero Span.
func SpanOf(c net.Conn) Span {
	for c != nil {
		if tc, ok := c.(TracedConn); ok {
			return tc.TraceSpan()
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = w.NetConn()
	}
	return Span{}
}

// ContextWithSpan returns ctx with s in it, for Coppice ([FromContext]) and for
// OpenTelemetry (trace.SpanFromContext). When s is off, ctx is returned as it is.
func ContextWithSpan(ctx context.Context, s Span) context.Context {
	if s.t == nil || s.t.provider == nil {
		return ctx
	}
	ctx = context.WithValue(ctx, spanKey{}, s)
	if s.s != nil {
		return trace.ContextWithSpan(ctx, s.s)
	}
	remote := trace.SpanFromContext(trace.ContextWithRemoteSpanContext(context.Background(), Decode(s.carrier)))
	return trace.ContextWithSpan(ctx, unsampledSpan{Span: remote, provider: s.t.provider})
}

// FromContext returns the span that [ContextWithSpan] or [ConnContext] put into ctx, or the zero
// Span. The span of a request may have replaced it for OpenTelemetry, but not here.
func FromContext(ctx context.Context) Span {
	s, _ := ctx.Value(spanKey{}).(Span)
	return s
}

type spanKey struct{}

// unsampledSpan is a span that records nothing and knows its provider.
type unsampledSpan struct {
	trace.Span
	provider trace.TracerProvider
}

func (s unsampledSpan) TracerProvider() trace.TracerProvider { return s.provider }
