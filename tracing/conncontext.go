package tracing

import (
	"context"
	"net"

	"go.opentelemetry.io/otel/trace"
)

// TracedConn is what a connection offers whose trace began before it was claimed.
// The connections that Coppice's listeners return implement it.
type TracedConn interface {
	net.Conn

	// TraceSpan returns the serve span of the connection; the zero Span when
	// tracing is off.
	TraceSpan() Span
}

// ConnContext returns ctx with the span of c, for http.Server.ConnContext: what
// a handler starts becomes part of the connection's trace. Where c is not a
// [TracedConn], also not under TLS (NetConn), ctx is returned as it is.
//
// The span in the context answers TracerProvider with one that Coppice was
// given, also when the trace is not sampled. Instrumentation such as otelhttp,
// which takes its provider from the span in the context, would otherwise fall
// back to the no-op one and lose its spans.
//
// By that provider the SERVER span of the first request is a child of the
// connection's; that of a later one is a root, or the child of the client that
// sent its trace, with a link to the connection's.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	return RequestContext(ctx, SpanOf(c))
}

// RequestContext is ConnContext for a server whose connections are not at hand
// when its contexts are made. Call it once for each connection.
func RequestContext(ctx context.Context, s Span) context.Context {
	if s.t == nil || s.t.provider == nil {
		return ctx
	}
	ctx = ContextWithSpan(ctx, s)
	return trace.ContextWithSpan(ctx, connSpan{trace.SpanFromContext(ctx), &requests{TracerProvider: s.t.provider, conn: s.Context()}})
}

// SpanOf returns the span of c, looking through wrappers that name what they wrap
// as tls.Conn does; the zero Span where there is none.
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

// FromContext returns the span that [ContextWithSpan] or [ConnContext] put into
// ctx, or the zero Span. A request's own span may have replaced it for
// OpenTelemetry; here it stays, for a link.
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
