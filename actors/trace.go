package actors

import (
	"context"
	"encoding/hex"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
	"go.opentelemetry.io/otel/trace"
)

// traceparent is the header that holds the trace context of a message within a process, as in W3C
// trace-context. Between processes it is 26 bytes of the frame.
const traceparent = "traceparent"

// Context returns a context with the trace context of the message that ctx is handling, for spans,
// [System.Send] and [System.Ask]. It has no deadline.
func Context(ctx actor.Context) context.Context {
	out := context.Background()
	if t, ok := ctx.(tracedContext); ok {
		return trace.ContextWithSpan(out, t.span)
	}
	h := ctx.MessageHeader()
	if h == nil || h.Length() == 0 {
		return out
	}
	if sc := parseTrace(h.Get(traceparent)); sc.IsValid() {
		return trace.ContextWithRemoteSpanContext(out, sc)
	}
	return out
}

var background = context.Background()

// traceHeader returns a header with the span of ctx; nil when there is none.
func traceHeader(ctx context.Context) map[string]string {
	if ctx == background {
		return nil
	}
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return nil
	}
	return map[string]string{traceparent: formatTrace(sc)}
}

// takeTrace moves the trace context out of a header that is ours.
func takeTrace(h map[string]string) fdipc.TraceContext {
	v, ok := h[traceparent]
	if !ok {
		return fdipc.TraceContext{}
	}
	sc := parseTrace(v)
	if !sc.IsValid() {
		return fdipc.TraceContext{}
	}
	delete(h, traceparent)
	return fdipc.TraceContext(tracing.Encode(sc))
}

// putTrace puts a frame's trace context into the header.
func putTrace(h map[string]string, t *fdipc.TraceContext) map[string]string {
	if [16]byte(t[:16]) == [16]byte{} && [10]byte(t[16:]) == [10]byte{} { // all 26 at once would be a call
		return h
	}
	sc := tracing.Decode(*t)
	if !sc.IsValid() {
		return h
	}
	if h == nil {
		h = make(map[string]string, 1)
	}
	h[traceparent] = formatTrace(sc)
	return h
}

// formatTrace returns 00-<trace id>-<span id>-<flags>.
func formatTrace(sc trace.SpanContext) string {
	b := make([]byte, 0, 55)
	tid, sid := sc.TraceID(), sc.SpanID()
	b = append(hex.AppendEncode(append(b, "00-"...), tid[:]), '-')
	b = append(hex.AppendEncode(b, sid[:]), '-')
	return string(hex.AppendEncode(b, []byte{byte(sc.TraceFlags())}))
}

func parseTrace(s string) trace.SpanContext {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return trace.SpanContext{}
	}
	tid, err1 := trace.TraceIDFromHex(s[3:35])
	sid, err2 := trace.SpanIDFromHex(s[36:52])
	flags, err3 := hex.DecodeString(s[53:])
	if err1 != nil || err2 != nil || err3 != nil {
		return trace.SpanContext{}
	}
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: tid, SpanID: sid, TraceFlags: trace.TraceFlags(flags[0]), Remote: true})
}
