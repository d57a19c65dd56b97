package otlp

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/coppice-go/coppice/tracing"
)

// ErrMalformed is wrapped, with tracing.ErrPayload, by the error of Receive for bytes that
// are not a TracesData message, by their outermost framing.
var ErrMalformed = fmt.Errorf("%w: malformed", tracing.ErrPayload)

// resourceSpansField is TracesData.resource_spans, the only field of the message
// (opentelemetry/proto/trace/v1/trace.proto).
const resourceSpansField = 1

const (
	payloadMax = 256 << 10 // bytes; a payload is one frame to the master, and others wait behind it
	frameMax   = 2 << 20   // bytes of a payload with one span, which cannot be split; a master takes no more
	partsMax   = 64        // resources in one payload; a process has one
)

// marshaller turns spans into payloads, each a TracesData message. It is an otlptrace.Client
// that gives requests to relay: there is no other way to the exporter's translation of spans.
type marshaller struct {
	exporter *otlptrace.Exporter
	relay    func(otlp []byte) error // takes ownership of the payload
	table    *spanTable              // where the spans are recorded; nil when there is no table

	// Of the batch that is being sent; owned by the goroutine of the queue.
	single bool // it has one span
	slots  []int
}

func newMarshaller(relay func([]byte) error) *marshaller {
	m := &marshaller{relay: relay}
	m.exporter = otlptrace.NewUnstarted(m)
	return m
}

// errSplit reports that a payload is longer than payloadMax, or has a span that cannot be
// marshalled, since a text is not UTF-8.
var errSplit = errors.New("tracing/otlp: payload to be halved")

// send is the send function of the queue of spans. It halves a batch whose payload is too
// long, and sends a single span whatever its length. It also halves a batch that cannot be
// marshalled, so that only the span that is the cause is lost.
func (m *marshaller) send(ctx context.Context, spans []endedSpan) (lost int, err error) {
	m.single = len(spans) == 1
	plain := make([]sdktrace.ReadOnlySpan, len(spans))
	m.slots = nil
	for i, s := range spans {
		plain[i] = s.ReadOnlySpan
		if s.slot != noSlot {
			m.slots = append(m.slots, s.slot)
		}
	}
	err = m.exporter.ExportSpans(ctx, plain)
	if errors.Is(err, errSplit) {
		half := len(spans) / 2
		n1, err1 := m.send(ctx, spans[:half])
		n2, err2 := m.send(ctx, spans[half:])
		return n1 + n2, errors.Join(err1, err2)
	}
	if err != nil {
		if m.table != nil {
			m.table.dropped(m.slots...)
		}
		return len(spans), err
	}
	return 0, nil
}

// UploadTraces marshals and relays.
func (m *marshaller) UploadTraces(_ context.Context, rs []*tracepb.ResourceSpans) error {
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: rs})
	if (err != nil || len(b) > payloadMax) && !m.single {
		return errSplit
	}
	if err != nil {
		return fmt.Errorf("tracing/otlp: a span is lost: %w", err)
	}
	if m.table == nil {
		return m.relay(b)
	}
	m.table.sending(m.slots)
	if err := m.relay(b); err != nil {
		m.table.refused()
		m.slots = nil // they are free
		return err
	}
	return nil
}

// Start and Stop are never called: the exporter is neither started nor shut down.
func (m *marshaller) Start(context.Context) error { return nil }
func (m *marshaller) Stop(context.Context) error  { return nil }

// payload is a TracesData message in parts, undecoded.
type payload struct {
	parts []*tracepb.ResourceSpans // each has its bytes as unknown fields
	size  int                      // bytes
}

// splitPayload splits a TracesData message into its ResourceSpans, undecoded. A part marshals
// to the bytes that it came from, so an exporter forwards a child's bytes without decoding
// them. Parts of several messages make one request: the concatenation of two TracesData
// messages is their merge. The parts keep the message's memory.
func splitPayload(otlp []byte) ([]*tracepb.ResourceSpans, error) {
	var parts []*tracepb.ResourceSpans
	for len(otlp) > 0 {
		if len(parts) == partsMax {
			return nil, fmt.Errorf("%w: more than %d resources", ErrMalformed, partsMax)
		}
		num, typ, n := protowire.ConsumeTag(otlp)
		if n < 0 {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(n))
		}
		if num != resourceSpansField || typ != protowire.BytesType {
			return nil, fmt.Errorf("%w: field %d of wire type %d", ErrMalformed, num, typ)
		}
		b, m := protowire.ConsumeBytes(otlp[n:])
		if m < 0 {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, protowire.ParseError(m))
		}
		rs := new(tracepb.ResourceSpans)
		rs.ProtoReflect().SetUnknown(b)
		parts = append(parts, rs)
		otlp = otlp[n+m:]
	}
	return parts, nil
}
