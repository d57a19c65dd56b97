package tracing_test

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

func spanContext(flags trace.TraceFlags) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    trace.TraceID{0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36},
		SpanID:     trace.SpanID{0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7},
		TraceFlags: flags,
	})
}

func TestCarrierRoundTrip(t *testing.T) {
	for _, row := range []struct {
		name string
		in   trace.SpanContext
		want trace.SpanContext
	}{
		{"none", trace.SpanContext{}, trace.SpanContext{}},
		{"not sampled", spanContext(0), spanContext(0).WithRemote(true)},
		{"sampled", spanContext(trace.FlagsSampled), spanContext(trace.FlagsSampled).WithRemote(true)},
		// W3C level 2: the random-trace-id flag must survive, and so must bits not yet named.
		{"random trace id", spanContext(trace.FlagsSampled | 0x02), spanContext(0x03).WithRemote(true)},
		{"all flags", spanContext(0xff), spanContext(0xff).WithRemote(true)},
		{"no span id", spanContext(1).WithSpanID(trace.SpanID{}), trace.SpanContext{}},
		{"no trace id", spanContext(1).WithTraceID(trace.TraceID{}), trace.SpanContext{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := tracing.Decode(tracing.Encode(row.in)); !got.Equal(row.want) {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

// The layout is part of the wire: docs/protocol.md shows the same bytes.
func TestCarrierLayout(t *testing.T) {
	got := tracing.Encode(spanContext(trace.FlagsSampled))
	want := [tracing.Size]byte{
		0,
		0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
		0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7,
		1,
	}
	if got != want {
		t.Errorf("got % x, want % x", got, want)
	}
}

func TestCarrierUnknownVersionIsNone(t *testing.T) {
	b := tracing.Encode(spanContext(trace.FlagsSampled))
	b[0] = 1
	if sc := tracing.Decode(b); sc.IsValid() {
		t.Errorf("version 1 was read as %+v", sc)
	}
}

func TestCarrierDoesNotAllocate(t *testing.T) {
	sc := spanContext(trace.FlagsSampled)
	var sink trace.SpanContext
	if n := testing.AllocsPerRun(100, func() { sink = tracing.Decode(tracing.Encode(sc)) }); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
	_ = sink
}

func FuzzCarrier(f *testing.F) {
	for _, sc := range []trace.SpanContext{{}, spanContext(0), spanContext(0xff)} {
		b := tracing.Encode(sc)
		f.Add(b[:])
	}
	f.Add([]byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, in []byte) {
		var b [tracing.Size]byte
		copy(b[:], in)
		sc := tracing.Decode(b)
		if !sc.IsValid() {
			if !sc.Equal(trace.SpanContext{}) {
				t.Fatalf("half a context from % x: %+v", b, sc)
			}
			return
		}
		if !sc.IsRemote() {
			t.Fatal("a context from bytes is remote")
		}
		if got := tracing.Encode(sc); got != b {
			t.Fatalf("% x became % x", b, got)
		}
	})
}

func BenchmarkEncodeDecode(b *testing.B) {
	sc := spanContext(trace.FlagsSampled)
	b.ReportAllocs()
	for b.Loop() {
		sc = tracing.Decode(tracing.Encode(sc))
	}
}
