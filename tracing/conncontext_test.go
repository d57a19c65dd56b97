package tracing_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

// tracedConn is a connection as Coppice's listeners return it.
type tracedConn struct {
	net.Conn
	span tracing.Span
}

func (c tracedConn) TraceSpan() tracing.Span { return c.span }

func TestConnContext(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	sampledTP, _ := recorder(t)
	unsampledTP, _ := recorder(t, sdktrace.WithSampler(sdktrace.NeverSample()))

	for _, row := range []struct {
		name string
		tp   trace.TracerProvider
		tls  bool
	}{
		{"sampled", sampledTP, false},
		{"sampled under TLS", sampledTP, true},
		{"not sampled", unsampledTP, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			accept := tracing.New(row.tp).Accept(tracing.AcceptSpan{})
			claim := tracing.New(row.tp).Claim(accept.Carrier(), tracing.Claim{})
			serve := claim.Serve()
			defer serve.End()
			var c net.Conn = tracedConn{a, serve}
			if row.tls {
				c = tls.Server(c, &tls.Config{MinVersion: tls.VersionTLS13})
			}
			ctx := tracing.ConnContext(t.Context(), c)

			got := trace.SpanContextFromContext(ctx)
			if got.TraceID() != accept.Context().TraceID() || got.SpanID() != serve.Context().SpanID() {
				t.Errorf("the context holds %+v, want the serve span %+v", got, serve.Context())
			}
			if tracing.FromContext(ctx) != serve {
				t.Error("FromContext does not return the serve span")
			}
			// otelhttp takes its provider from here; the no-op one would lose its spans.
			_, child := trace.SpanFromContext(ctx).TracerProvider().Tracer("handler").Start(ctx, "GET /")
			if got := child.TracerProvider(); got != row.tp {
				t.Errorf("a child's provider is %T, want the given one", got)
			}
			defer child.End()
			if child.SpanContext().TraceID() != accept.Context().TraceID() || child.IsRecording() != serve.Sampled() {
				t.Errorf("a handler's span is %+v, recording %v", child.SpanContext(), child.IsRecording())
			}
		})
	}
}

func TestConnContextWithoutATrace(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	ctx := context.Background()
	if got := tracing.ConnContext(ctx, a); got != ctx {
		t.Error("a plain connection changed the context")
	}
	var off net.Conn = tracedConn{Conn: a}
	if got := tracing.ConnContext(ctx, off); got != ctx {
		t.Error("a connection without a trace changed the context")
	}
	if tracing.FromContext(ctx) != (tracing.Span{}) {
		t.Error("an empty context has a span")
	}
	if n := testing.AllocsPerRun(100, func() { tracing.ConnContext(ctx, off) }); n != 0 {
		t.Errorf("off: %v allocations, want 0", n)
	}
}

func TestRequestContextOff(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	if tracing.RequestContext(ctx, tracing.Span{}) != ctx {
		t.Error("a context without a span was changed")
	}
	var metricsOnly *tracing.Tracer
	if s := metricsOnly.WithMeter(tracing.NewMeter()).Accept(tracing.AcceptSpan{}); s.Sampled() || tracing.RequestContext(ctx, s) != ctx {
		t.Error("a tracer with a meter only has spans")
	}
}
