package otlp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

// endedSpans returns n spans, each with an attribute of the given length.
func endedSpans(n, length int) []endedSpan {
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	for range n {
		_, s := tp.Tracer("test").Start(context.Background(), "span")
		s.SetAttributes(attribute.String("big", strings.Repeat("x", length)))
		s.End()
	}
	var spans []endedSpan
	for _, s := range sr.Ended() {
		spans = append(spans, endedSpan{s, noSlot})
	}
	return spans
}

// onePayload returns a real payload of n spans.
func onePayload(t testing.TB, n int) []byte {
	var b []byte
	m := newMarshaller(func(otlp []byte) error { b = otlp; return nil })
	if lost, err := m.send(context.Background(), endedSpans(n, 10)); lost != 0 || err != nil {
		t.Fatal(lost, err)
	}
	return b
}

func TestMarshallerHalvesWhatIsTooLong(t *testing.T) {
	boom := errors.New("boom")
	for _, row := range []struct {
		name             string
		spans, length    int
		refuse           int // the relay refuses this payload, counted from 1
		payloads, lost   int
		longestPayloadOK bool
	}{
		{"short", 8, 10, 0, 1, 0, true},
		{"long", 8, payloadMax / 3, 0, 4, 0, true},
		{"a single span goes as it is", 1, payloadMax + 1, 0, 1, 0, false},
		{"one half is refused", 8, payloadMax / 3, 2, 4, 2, true},
		{"all is refused", 8, 10, 1, 1, 8, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			payloads, spans := 0, 0
			m := newMarshaller(func(otlp []byte) error {
				payloads++
				if ok := len(otlp) <= payloadMax; ok != row.longestPayloadOK {
					t.Errorf("a payload of %d bytes", len(otlp))
				}
				if payloads == row.refuse {
					return boom
				}
				got, err := otlptest.Decode(otlp)
				spans += len(got)
				return err
			})
			lost, err := m.send(t.Context(), endedSpans(row.spans, row.length))
			if errors.Is(err, boom) != (row.refuse != 0) {
				t.Errorf("error %v", err)
			}
			if payloads != row.payloads || lost != row.lost || spans != row.spans-row.lost {
				t.Errorf("%d payloads, %d lost, %d arrived; want %d, %d, %d",
					payloads, lost, spans, row.payloads, row.lost, row.spans-row.lost)
			}
		})
	}
}

func TestSplitPayload(t *testing.T) {
	one := onePayload(t, 3)
	for _, row := range []struct {
		name  string
		in    []byte
		parts int // -1: malformed
	}{
		{"empty", nil, 0},
		{"one", one, 1},
		{"two, one behind the other", slices.Concat(one, one), 2},
		{"torn", one[:len(one)-1], -1},
		{"other field", []byte{2<<3 | 2, 0}, -1},
		{"other wire type", []byte{1 << 3, 0}, -1},
		{"length beyond the end", []byte{1<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0x0f}, -1},
		{"no length", []byte{1<<3 | 2}, -1},
		{"as many as allowed", slices.Repeat([]byte{1<<3 | 2, 0}, partsMax), partsMax},
		// Two bytes a part would make a message of a megabyte fifty megabytes.
		{"too many parts", slices.Repeat([]byte{1<<3 | 2, 0}, partsMax+1), -1},
	} {
		t.Run(row.name, func(t *testing.T) {
			parts, err := splitPayload(row.in)
			if row.parts < 0 {
				if !errors.Is(err, ErrMalformed) {
					t.Errorf("error %v, want ErrMalformed", err)
				}
				return
			}
			if err != nil || len(parts) != row.parts {
				t.Errorf("%d parts, error %v; want %d", len(parts), err, row.parts)
			}
		})
	}
}

// FuzzSplitPayload: what is accepted marshals to the bytes that came in, but for
// the form of the outermost lengths.
func FuzzSplitPayload(f *testing.F) {
	one := onePayload(f, 2)
	f.Add(one)
	f.Add(slices.Concat(one, one))
	f.Add([]byte{1<<3 | 2, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, in []byte) {
		parts, err := splitPayload(in)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v, want ErrMalformed", err)
			}
			return
		}
		out, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: parts})
		if err != nil {
			t.Fatal(err)
		}
		again, err := splitPayload(out)
		if err != nil || len(again) != len(parts) || len(out) > len(in) {
			t.Fatalf("%d bytes in %d parts became %d in %d: %v", len(in), len(parts), len(out), len(again), err)
		}
		for i := range parts {
			if !slices.Equal(parts[i].ProtoReflect().GetUnknown(), again[i].ProtoReflect().GetUnknown()) {
				t.Fatalf("part %d changed", i)
			}
		}
	})
}

// A span that is longer than what a master takes is refused in its child: it is counted there, and
// those beside it arrive.
func TestSpanTooLongForAFrame(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	var frames [][]byte
	pl := start(t, workerProcess, &tracing.Uplink{Send: func(kind tracing.PayloadKind, b []byte) error {
		if kind == tracing.Spans {
			frames = append(frames, b)
		}
		return nil
	}})
	for _, length := range []int{10, frameMax, 10} {
		_, s := pl.TracerProvider().Tracer("test").Start(t.Context(), "span")
		s.SetAttributes(attribute.String("big", strings.Repeat("x", length)))
		s.End()
	}
	shutdown(t, pl) // all is sent
	spans := 0
	for _, b := range frames {
		var data tracepb.TracesData
		if err := proto.Unmarshal(b, &data); err != nil || len(b) > frameMax {
			t.Fatalf("a payload of %d bytes: %v", len(b), err)
		}
		for _, rs := range data.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				spans += len(ss.Spans)
			}
		}
	}
	if got := pl.Stats().SpansDropped; spans != 2 || got != 1 {
		t.Errorf("%d spans arrive, %d are counted as dropped", spans, got)
	}
}
