package otlp_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

// tracedConn is a connection as Coppice's listeners return it.
type tracedConn struct {
	net.Conn
	span tracing.Span
}

func (c tracedConn) TraceSpan() tracing.Span { return c.span }

// tracedListener returns connections as Coppice's listeners do.
type tracedListener struct {
	net.Listener
	tracer *tracing.Tracer
	accept func(tracing.Span)
}

func (l tracedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := l.tracer.Accept(tracing.AcceptSpan{})
	l.accept(s)
	return tracedConn{c, l.tracer.Claim(s.Carrier(), tracing.Claim{}).Serve()}, nil
}

// Requests of one keep-alive connection, by the official instrumentation without
// any option: the first continues the connection's trace, the others link to it,
// and a client that brings a trace is followed.
func TestRequestsOfOneConnection(t *testing.T) {
	for _, row := range []struct {
		name    string
		sampler sdktrace.Sampler
		sampled bool // of the connection
	}{
		{"sampled", sdktrace.AlwaysSample(), true},
		// Later requests are roots: the sampler is asked anew.
		{"not sampled", sdktrace.NeverSample(), false},
	} {
		t.Run(row.name, func(t *testing.T) {
			connTP := sdktrace.NewTracerProvider(sdktrace.WithSampler(row.sampler))
			spans := tracetest.NewSpanRecorder()
			tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
			var conn tracing.Span
			tracer := tracing.New(connTP)
			if row.sampled {
				tracer = tracing.New(tp)
			}
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, s := trace.SpanFromContext(r.Context()).TracerProvider().Tracer("app").Start(r.Context(), "work")
				s.End()
				if got := tracing.FromContext(r.Context()).Context().TraceID(); got != conn.Context().TraceID() {
					t.Errorf("a handler finds the connection %v, want %v", got, conn.Context().TraceID())
				}
			})
			srv := httptest.NewUnstartedServer(otelhttp.NewHandler(handler, "server",
				otelhttp.WithPropagators(propagation.TraceContext{})))
			srv.Listener = tracedListener{srv.Listener, tracer, func(s tracing.Span) { conn = s }}
			srv.Config.ConnContext = tracing.ConnContext
			srv.Start()
			defer srv.Close()

			const client = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
			for _, parent := range []string{"", "", client} {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
				if parent != "" {
					req.Header.Set("traceparent", parent)
				}
				resp, err := srv.Client().Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			}
			srv.Close()

			var requests []sdktrace.ReadOnlySpan
			for _, s := range spans.Ended() {
				if s.SpanKind() == trace.SpanKindServer {
					requests = append(requests, s)
				}
			}
			slices.SortFunc(requests, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
			if !row.sampled {
				if len(requests) > 1 {
					t.Errorf("%d requests recorded", len(requests))
				}
				return
			}
			if len(requests) != 3 {
				t.Fatalf("%d requests recorded, want 3", len(requests))
			}
			first, later, followed := requests[0], requests[1], requests[2]
			linked := func(s sdktrace.ReadOnlySpan) bool {
				l := s.Links()
				return len(l) == 1 && l[0].SpanContext.TraceID() == conn.Context().TraceID() && l[0].SpanContext.SpanID() == first.Parent().SpanID()
			}
			if first.SpanContext().TraceID() != conn.Context().TraceID() || len(first.Links()) != 0 {
				t.Errorf("the first request is in trace %v with links %v", first.SpanContext().TraceID(), first.Links())
			}
			if later.Parent().IsValid() || later.SpanContext().TraceID() == conn.Context().TraceID() || !linked(later) {
				t.Errorf("the second request is under %v, with links %v", later.Parent().SpanID(), later.Links())
			}
			if followed.SpanContext().TraceID().String() != "4bf92f3577b34da6a3ce929d0e0e4736" || !linked(followed) {
				t.Errorf("the client's request is in trace %v, with links %v", followed.SpanContext().TraceID(), followed.Links())
			}
		})
	}
}
