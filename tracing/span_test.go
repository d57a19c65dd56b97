package tracing_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/coppice-go/coppice/tracing"
)

// recorder returns a provider that keeps every span, and what it kept.
func recorder(t testing.TB, opts ...sdktrace.TracerProviderOption) (*sdktrace.TracerProvider, *tracetest.SpanRecorder) {
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(append(opts, sdktrace.WithSpanProcessor(sr))...)
	t.Cleanup(func() {
		if err := tp.Shutdown(t.Context()); err != nil {
			t.Log(err)
		}
	})
	return tp, sr
}

func attr(s sdktrace.ReadOnlySpan, k attribute.Key) attribute.Value {
	for _, kv := range s.Attributes() {
		if kv.Key == k {
			return kv.Value
		}
	}
	return attribute.Value{}
}

// One connection whose first worker died: the chain as the package comment draws it.
func TestChainWithAReturnedHandoff(t *testing.T) {
	listenerTP, listenerSpans := recorder(t)
	workerTP, workerSpans := recorder(t)
	listener, worker := tracing.New(listenerTP), tracing.New(workerTP)

	at := time.Unix(1700000000, 0)
	accept := listener.Accept(tracing.AcceptSpan{
		Listener: "http", Transport: "tcp", Peer: netip.MustParseAddrPort("[2001:db8::1]:4711"), At: at,
	})
	queue := accept.Queue("web")
	queue.End()
	first := accept.Handoff(tracing.Handoff{Pool: "web", Target: "web/0", Incarnation: 1, Kind: "conn"})
	first.EndOutcome(time.Time{}, tracing.Returned, "signal: killed")
	second := accept.Handoff(tracing.Handoff{Pool: "web", Target: "web/1", Incarnation: 4, Kind: "conn", Repeats: first})

	claim := worker.Claim(second.Carrier(), tracing.Claim{Pool: "web", Kind: "conn"})
	serve := claim.Serve()
	claim.End()

	second.EndOutcome(time.Time{}, tracing.Claimed, "")
	accept.End()
	serve.EndError(fmt.Errorf("read: %w", syscall.ECONNRESET))

	want := []struct {
		name, parent string
		kind         trace.SpanKind
		status       codes.Code
		remote       bool
	}{
		{"queue", "accept", trace.SpanKindInternal, codes.Unset, false},
		{"hand-off", "accept", trace.SpanKindProducer, codes.Error, false},
		{"hand-off", "accept", trace.SpanKindProducer, codes.Unset, false},
		{"accept", "", trace.SpanKindInternal, codes.Unset, false},
		{"claim", "hand-off", trace.SpanKindConsumer, codes.Unset, true},
		{"serve", "claim", trace.SpanKindInternal, codes.Error, false},
	}
	ended := slices.Concat(listenerSpans.Ended(), workerSpans.Ended())
	if len(ended) != len(want) {
		t.Fatalf("%d spans, want %d", len(ended), len(want))
	}
	byID := make(map[trace.SpanID]sdktrace.ReadOnlySpan)
	for _, s := range ended {
		byID[s.SpanContext().SpanID()] = s
	}
	for i, s := range ended {
		w := want[i]
		parent := ""
		if p := byID[s.Parent().SpanID()]; p != nil {
			parent = p.Name()
		}
		if s.Name() != w.name || parent != w.parent || s.SpanKind() != w.kind || s.Status().Code != w.status || s.Parent().IsRemote() != w.remote {
			t.Errorf("span %d: %s under %q, %v, %v, remote parent %v; want %+v",
				i, s.Name(), parent, s.SpanKind(), s.Status(), s.Parent().IsRemote(), w)
		}
		if s.SpanContext().TraceID() != accept.Context().TraceID() {
			t.Errorf("span %d: %s is in another trace", i, s.Name())
		}
		if got := s.InstrumentationScope(); got.Name != tracing.ScopeName || got.SchemaURL != tracing.SchemaURL {
			t.Errorf("span %d: scope %+v", i, got)
		}
	}

	failed, claimed, root, served := ended[1], ended[2], ended[3], ended[5]
	if got := attr(failed, tracing.KeyHandoffOutcome).AsString(); got != "returned" {
		t.Errorf("outcome of the first hand-off: %q", got)
	}
	// Jaeger finds failed spans by error.type only.
	if got := attr(failed, tracing.KeyErrorType).AsString(); got != "returned" {
		t.Errorf("error.type of the first hand-off: %q", got)
	}
	if got := attr(failed, tracing.KeyHandoffReason).AsString(); got != "signal: killed" {
		t.Errorf("reason of the first hand-off: %q", got)
	}
	if got := attr(claimed, tracing.KeyHandoffTarget).AsString(); got != "web/1" {
		t.Errorf("target of the second hand-off: %q", got)
	}
	if l := claimed.Links(); len(l) != 1 || l[0].SpanContext.SpanID() != first.Context().SpanID() {
		t.Errorf("links of the second hand-off: %+v", l)
	}
	if !root.StartTime().Equal(at) {
		t.Errorf("accept starts at %v, want %v", root.StartTime(), at)
	}
	if got := attr(root, tracing.KeyPeerAddress).AsString(); got != "2001:db8::1" {
		t.Errorf("peer address %q", got)
	}
	if got := attr(root, tracing.KeyPeerPort).AsInt64(); got != 4711 {
		t.Errorf("peer port %d", got)
	}
	if got := attr(served, tracing.KeyErrorType).AsString(); got != "syscall.Errno" {
		t.Errorf("error.type of serve: %q", got)
	}
}

// The decision made at accept holds in the worker, whatever its own sampler says.
func TestUnsampledTraceStaysUnsampled(t *testing.T) {
	listenerTP, listenerSpans := recorder(t, sdktrace.WithSampler(sdktrace.NeverSample()))
	workerTP, workerSpans := recorder(t)
	accept := tracing.New(listenerTP).Accept(tracing.AcceptSpan{})
	handoff := accept.Handoff(tracing.Handoff{Pool: "web"})
	if sc := handoff.Context(); !sc.IsValid() || sc.IsSampled() {
		t.Errorf("the carrier of an unsampled trace holds %+v", sc)
	}
	claim := tracing.New(workerTP).Claim(handoff.Carrier(), tracing.Claim{})
	serve := claim.Serve()
	if serve.Context().TraceID() != accept.Context().TraceID() {
		t.Error("the worker is in another trace")
	}
	for _, s := range []tracing.Span{serve, claim, handoff, accept} {
		if s.Sampled() {
			t.Error("a span is sampled")
		}
		s.End()
	}
	if n := len(listenerSpans.Ended()) + len(workerSpans.Ended()); n != 0 {
		t.Errorf("%d spans were recorded", n)
	}
}

func TestNoContextNoSpan(t *testing.T) {
	tp, spans := recorder(t)
	claim := tracing.New(tp).Claim([tracing.Size]byte{}, tracing.Claim{Kind: "conn"})
	claim.Serve().End()
	claim.End()
	if n := len(spans.Started()); n != 0 {
		t.Errorf("%d spans without a context", n)
	}
}

func TestNewIsOffWithoutAProvider(t *testing.T) {
	for _, tp := range []trace.TracerProvider{nil, noop.NewTracerProvider()} {
		if tracing.New(tp) != nil {
			t.Errorf("New(%T) is not off", tp)
		}
	}
}

// connection does what one connection costs in both processes, but for the root.
func connection(accept tracing.Span, worker *tracing.Tracer) {
	queue := accept.Queue("web")
	queue.End()
	handoff := accept.Handoff(tracing.Handoff{Pool: "web", Target: "web/0", Incarnation: 1, Kind: "conn"})
	claim := worker.Claim(handoff.Carrier(), tracing.Claim{Pool: "web", Kind: "conn"})
	serve := claim.Serve()
	claim.End()
	handoff.EndOutcome(time.Time{}, tracing.Claimed, "")
	serve.EndError(os.ErrDeadlineExceeded)
}

func TestOffDoesNotAllocate(t *testing.T) {
	peer := netip.MustParseAddrPort("192.0.2.1:4711")
	var off *tracing.Tracer
	if n := testing.AllocsPerRun(100, func() {
		accept := off.Accept(tracing.AcceptSpan{Listener: "http", Transport: "tcp", Peer: peer})
		connection(accept, off)
		accept.End()
	}); n != 0 {
		t.Errorf("off: %v allocations, want 0", n)
	}

	tp, _ := recorder(t, sdktrace.WithSampler(sdktrace.NeverSample()))
	tracer := tracing.New(tp)
	accept := tracer.Accept(tracing.AcceptSpan{})
	if n := testing.AllocsPerRun(100, func() { connection(accept, tracer) }); n != 0 {
		t.Errorf("not sampled, below the root: %v allocations, want 0", n)
	}
}

func TestErrorTypeIsTheInnermost(t *testing.T) {
	tp, spans := recorder(t)
	err := fmt.Errorf("serve: %w", &os.PathError{Op: "open", Path: "x", Err: errors.New("boom")})
	tracing.New(tp).Accept(tracing.AcceptSpan{}).EndError(err)
	if got := attr(spans.Ended()[0], tracing.KeyErrorType).AsString(); got != "*errors.errorString" {
		t.Errorf("error.type %q", got)
	}
}

// One op is one connection: both processes' work, without the socket.
func BenchmarkConnection(b *testing.B) {
	ratio := func(r float64) sdktrace.TracerProviderOption {
		return sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(r)))
	}
	for _, row := range []struct {
		name string
		tp   trace.TracerProvider
	}{
		{"off", nil},
		{"unsampled", sdktrace.NewTracerProvider(ratio(0))},
		{"1%", sdktrace.NewTracerProvider(ratio(0.01))},
		{"100%", sdktrace.NewTracerProvider(ratio(1))},
	} {
		b.Run(row.name, func(b *testing.B) {
			tracer := tracing.New(row.tp)
			peer := netip.MustParseAddrPort("192.0.2.1:4711")
			b.ReportAllocs()
			for b.Loop() {
				accept := tracer.Accept(tracing.AcceptSpan{Listener: "http", Transport: "tcp", Peer: peer})
				connection(accept, tracer)
				accept.End()
			}
		})
	}
}
