package tracing

import "go.opentelemetry.io/otel/trace"

// Size is the length of a carrier in bytes.
//
//	offset  0        1         17       25      26
//	        +--------+---------+--------+-------+
//	        | ver(1) | trace   | span   | flags |
//	        | = 0    | id (16) | id (8) | (1)   |
//	        +--------+---------+--------+-------+
//
// The ids are the bytes of W3C trace-context, in its order. All flag bits are
// carried, known or not. All zero means: no context.
const Size = 26

const (
	carrierVersion = 0

	offTraceID = 1
	offSpanID  = 17
	offFlags   = 25
)

// Encode returns sc in its binary form. A context that is not valid gives the
// zero carrier. The trace state is not carried. It does not allocate.
//
// The result is a plain array, so that it can be assigned to another package's type of the
// same shape.
func Encode(sc trace.SpanContext) (b [Size]byte) {
	if !sc.IsValid() {
		return b
	}
	tid, sid := sc.TraceID(), sc.SpanID()
	b[0] = carrierVersion
	copy(b[offTraceID:], tid[:])
	copy(b[offSpanID:], sid[:])
	b[offFlags] = byte(sc.TraceFlags())
	return b
}

// Decode returns the context in b, marked as remote. Bytes that hold none (all
// zero, an unknown version, a zero id) give the zero SpanContext, which is not
// valid: useless bytes from a peer are not an error. It does not allocate.
func Decode(b [Size]byte) trace.SpanContext {
	if b[0] != carrierVersion {
		return trace.SpanContext{}
	}
	c := trace.SpanContextConfig{TraceFlags: trace.TraceFlags(b[offFlags]), Remote: true}
	copy(c.TraceID[:], b[offTraceID:])
	copy(c.SpanID[:], b[offSpanID:])
	if !c.TraceID.IsValid() || !c.SpanID.IsValid() {
		return trace.SpanContext{}
	}
	return trace.NewSpanContext(c)
}
