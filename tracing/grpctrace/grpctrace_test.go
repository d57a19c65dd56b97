package grpctrace_test

import (
	"context"
	"net"
	"slices"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/grpctrace"
)

type conn struct {
	net.Conn
	span tracing.Span
}

func (c conn) TraceSpan() tracing.Span { return c.span }

// listener returns connections as Coppice's listeners do.
type listener struct {
	net.Listener
	tracer *tracing.Tracer
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := l.tracer.Accept(tracing.AcceptSpan{})
	return conn{c, l.tracer.Claim(s.Carrier(), tracing.Claim{}).Serve()}, nil
}

type server struct {
	*health.Server
	t *testing.T
}

// Check finds the connection's trace, and who the client is.
func (s server) Check(ctx context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if !tracing.FromContext(ctx).Context().IsValid() {
		s.t.Error("a handler does not find its connection's span")
	}
	p, _ := peer.FromContext(ctx)
	if got := grpctrace.AuthInfo(p.AuthInfo).AuthType(); got != "insecure" {
		s.t.Errorf("the client is %q", got)
	}
	return s.Server.Check(ctx, r)
}

// Watch answers twice on a stream that the client ends.
func (s server) Watch(_ *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	if !tracing.FromContext(stream.Context()).Context().IsValid() {
		s.t.Error("the handler of a stream does not find its connection's span")
	}
	_, span := trace.SpanFromContext(stream.Context()).TracerProvider().Tracer("app").Start(stream.Context(), "work")
	defer span.End()
	for range 2 {
		if err := stream.Send(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func TestCallsOfOneConnection(t *testing.T) {
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr))
	opts := append(grpctrace.ServerOptions(insecure.NewCredentials()), grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(grpctrace.Provider()), otelgrpc.WithPropagators(propagation.TraceContext{}),
	)))
	srv := grpc.NewServer(opts...)
	healthpb.RegisterHealthServer(srv, server{health.NewServer(), t})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener{ln, tracing.New(tp)}) }() // ends by Stop
	client, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	const theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, parent := range []string{"", "", "00-" + theirs + "-00f067aa0ba902b7-01"} {
		ctx := t.Context()
		if parent != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", parent)
		}
		if _, err := healthpb.NewHealthClient(client).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	// Two streams at a time, on the same connection.
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := healthpb.NewHealthClient(client).Watch(ctx, &healthpb.HealthCheckRequest{})
		for range 2 {
			if err == nil {
				_, err = stream.Recv()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	client.Close()
	srv.GracefulStop()
	if err := <-served; err != nil {
		t.Error(err)
	}
	var calls []sdktrace.ReadOnlySpan
	var serve trace.SpanContext
	for _, s := range sr.Started() {
		if s.SpanKind() == trace.SpanKindServer {
			calls = append(calls, s)
		}
		if s.Name() == tracing.SpanServe {
			serve = s.SpanContext()
		}
	}
	slices.SortFunc(calls, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	if len(calls) != 5 {
		t.Fatalf("%d calls recorded, want 5", len(calls))
	}
	linked := func(s sdktrace.ReadOnlySpan) bool {
		return len(s.Links()) == 1 && s.Links()[0].SpanContext.SpanID() == serve.SpanID()
	}
	if calls[0].Parent().SpanID() != serve.SpanID() || len(calls[0].Links()) != 0 {
		t.Errorf("the first call is under %v, want %v", calls[0].Parent().SpanID(), serve.SpanID())
	}
	if calls[1].Parent().IsValid() || !linked(calls[1]) {
		t.Errorf("the second call is under %v, with links %v", calls[1].Parent(), calls[1].Links())
	}
	if calls[2].SpanContext().TraceID().String() != theirs || !linked(calls[2]) {
		t.Errorf("the client's call is in trace %v, with links %v", calls[2].SpanContext().TraceID(), calls[2].Links())
	}
	for _, stream := range calls[3:] {
		if stream.Parent().IsValid() || !linked(stream) {
			t.Errorf("a stream is under %v, with links %v", stream.Parent(), stream.Links())
		}
		work := 0
		for _, s := range sr.Ended() {
			if s.Name() == "work" && s.Parent().SpanID() == stream.SpanContext().SpanID() {
				work++
			}
		}
		if work != 1 {
			t.Errorf("%d spans of the handler under its stream, want 1", work)
		}
	}
}
