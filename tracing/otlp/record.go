package otlp

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A record is a span in the table: one byte of length, the name of the instrumentation scope,
// and a Span message of OTLP, written field by field and without an allocation. Parts that do
// not fit are left out and counted in the message's dropped counts.
const (
	maxScope = 64
	maxName  = 96

	// tailRoom is kept for the dropped counts, which are written last.
	tailRoom = 3 * 4
)

// The fields of Span, Span.Link, KeyValue, AnyValue and Status that a record has
// (opentelemetry/proto/trace/v1/trace.proto, common/v1/common.proto).
const (
	fieldTraceID           = 1
	fieldSpanID            = 2
	fieldParentID          = 4
	fieldName              = 5
	fieldKind              = 6
	fieldStart             = 7
	fieldEnd               = 8
	fieldAttribute         = 9
	fieldDroppedAttributes = 10
	fieldDroppedEvents     = 12
	fieldLink              = 13
	fieldDroppedLinks      = 14
	fieldStatus            = 15

	fieldKey    = 1
	fieldValue  = 2
	fieldString = 1
	fieldBool   = 2
	fieldInt    = 3
	fieldDouble = 4

	fieldMessage = 2
	fieldCode    = 3
)

// linkSize is a link of a trace id and a span id, with its tag and length.
const linkSize = 1 + 1 + 2 + 16 + 2 + 8

// putRecord writes the record of s into dst and returns its length.
func putRecord(dst []byte, s sdktrace.ReadOnlySpan) int {
	max := len(dst)
	scope := clip(s.InstrumentationScope().Name, maxScope)
	b := append(append(dst[:0], byte(len(scope))), scope...)

	sc := s.SpanContext()
	tid, sid := sc.TraceID(), sc.SpanID()
	b = append(protowire.AppendVarint(protowire.AppendTag(b, fieldTraceID, protowire.BytesType), 16), tid[:]...)
	b = append(protowire.AppendVarint(protowire.AppendTag(b, fieldSpanID, protowire.BytesType), 8), sid[:]...)
	if p := s.Parent(); p.SpanID().IsValid() {
		pid := p.SpanID()
		b = append(protowire.AppendVarint(protowire.AppendTag(b, fieldParentID, protowire.BytesType), 8), pid[:]...)
	}
	b = protowire.AppendString(protowire.AppendTag(b, fieldName, protowire.BytesType), clip(s.Name(), maxName))
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldKind, protowire.VarintType), uint64(s.SpanKind()))
	b = protowire.AppendFixed64(protowire.AppendTag(b, fieldStart, protowire.Fixed64Type), uint64(s.StartTime().UnixNano()))
	if end := s.EndTime(); !end.IsZero() {
		b = protowire.AppendFixed64(protowire.AppendTag(b, fieldEnd, protowire.Fixed64Type), uint64(end.UnixNano()))
	}
	if st := s.Status(); st.Code != codes.Unset {
		b = putStatus(b, st, max-tailRoom)
	}

	attrs, links := s.DroppedAttributes(), s.DroppedLinks()
	for _, kv := range s.Attributes() {
		var ok bool
		if b, ok = putAttribute(b, kv, max-tailRoom); !ok {
			attrs++
		}
	}
	for _, l := range s.Links() {
		if len(b)+linkSize > max-tailRoom {
			links++
			continue
		}
		tid, sid := l.SpanContext.TraceID(), l.SpanContext.SpanID()
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldLink, protowire.BytesType), linkSize-2)
		b = append(protowire.AppendVarint(protowire.AppendTag(b, fieldTraceID, protowire.BytesType), 16), tid[:]...)
		b = append(protowire.AppendVarint(protowire.AppendTag(b, fieldSpanID, protowire.BytesType), 8), sid[:]...)
	}
	b = putCount(b, fieldDroppedAttributes, attrs)
	b = putCount(b, fieldDroppedEvents, s.DroppedEvents()+len(s.Events()))
	b = putCount(b, fieldDroppedLinks, links)
	return len(b)
}

// putCount writes a count that is not 0, in at most 4 bytes.
func putCount(b []byte, field protowire.Number, n int) []byte {
	if n <= 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(min(n, 1<<21-1)))
}

func putStatus(b []byte, st sdktrace.Status, max int) []byte {
	code := tracepb.Status_STATUS_CODE_OK
	if st.Code == codes.Error {
		code = tracepb.Status_STATUS_CODE_ERROR
	}
	const overhead = 1 + 2 + 1 + 2 + 2
	message := clip(st.Description, max-len(b)-overhead)
	size := 2
	if message != "" {
		size += 1 + protowire.SizeBytes(len(message))
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldStatus, protowire.BytesType), uint64(size))
	if message != "" {
		b = protowire.AppendString(protowire.AppendTag(b, fieldMessage, protowire.BytesType), message)
	}
	return protowire.AppendVarint(protowire.AppendTag(b, fieldCode, protowire.VarintType), uint64(code))
}

// putAttribute writes one attribute, if it fits as a whole. A list is written as its text.
func putAttribute(b []byte, kv attribute.KeyValue, max int) ([]byte, bool) {
	var (
		text  string
		value int // length of the AnyValue
	)
	switch kv.Value.Type() {
	case attribute.BOOL:
		value = 2
	case attribute.INT64:
		value = 1 + protowire.SizeVarint(uint64(kv.Value.AsInt64()))
	case attribute.FLOAT64:
		value = 1 + 8
	case attribute.STRING:
		text = clip(kv.Value.AsString(), max)
		value = 1 + protowire.SizeBytes(len(text))
	default:
		text = clip(kv.Value.String(), max)
		value = 1 + protowire.SizeBytes(len(text))
	}
	size := 1 + protowire.SizeBytes(len(kv.Key)) + 1 + protowire.SizeBytes(value)
	if len(b)+1+protowire.SizeBytes(size) > max {
		return b, false
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldAttribute, protowire.BytesType), uint64(size))
	b = protowire.AppendString(protowire.AppendTag(b, fieldKey, protowire.BytesType), string(kv.Key))
	b = protowire.AppendVarint(protowire.AppendTag(b, fieldValue, protowire.BytesType), uint64(value))
	switch kv.Value.Type() {
	case attribute.BOOL:
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldBool, protowire.VarintType), protowire.EncodeBool(kv.Value.AsBool()))
	case attribute.INT64:
		b = protowire.AppendVarint(protowire.AppendTag(b, fieldInt, protowire.VarintType), uint64(kv.Value.AsInt64()))
	case attribute.FLOAT64:
		b = protowire.AppendFixed64(protowire.AppendTag(b, fieldDouble, protowire.Fixed64Type), math.Float64bits(kv.Value.AsFloat64()))
	default:
		b = protowire.AppendString(protowire.AppendTag(b, fieldString, protowire.BytesType), text)
	}
	return b, true
}

// clip returns at most max bytes of s, ending with a whole character, and of
// valid UTF-8, which a string field has to be.
func clip(s string, max int) string {
	s = strings.ToValidUTF8(s, "\ufffd")
	if len(s) <= max {
		return s
	}
	if max <= 0 {
		return ""
	}
	for max > 0 && s[max]&0xc0 == 0x80 {
		max--
	}
	return s[:max]
}

var errRecord = errors.New("tracing/otlp: unusable record")

// readRecord decodes and checks a record that a child has written.
func readRecord(b []byte) (scope string, s *tracepb.Span, err error) {
	if len(b) == 0 || int(b[0]) > maxScope || 1+int(b[0]) > len(b) {
		return "", nil, errRecord
	}
	scope, b = clip(string(b[1:1+b[0]]), maxScope), b[1+b[0]:]
	s = new(tracepb.Span)
	if err := proto.Unmarshal(b, s); err != nil {
		return "", nil, errRecord
	}
	if len(s.TraceId) != 16 || len(s.SpanId) != 8 || zero(s.TraceId) || zero(s.SpanId) ||
		len(s.ParentSpanId) != 0 && len(s.ParentSpanId) != 8 || s.StartTimeUnixNano == 0 {
		return "", nil, errRecord
	}
	return scope, s, nil
}

func zero(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	return true
}
