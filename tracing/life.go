package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// LifecycleSpan describes a span of the life of a process, see [Tracer.Begin].
type LifecycleSpan struct {
	Path       string     // of the child, as web/0
	At         time.Time  // zero means now
	Parent     Span       // zero means Remote
	Remote     [Size]byte // carrier of a parent that another program has ended; zero means a new root
	Links      []trace.SpanContext
	Attributes []attribute.KeyValue
}

// Begin starts a span of the life of processes, with one of the names from SpanStart to
// SpanRollBack. Such spans are few, and their cost delays nothing. The caller ends it with
// [Span.End], [Span.EndAt] or [Span.EndError].
func (t *Tracer) Begin(name string, b LifecycleSpan) Span {
	if t == nil || t.tracer == nil {
		return Span{}
	}
	opts := []trace.SpanStartOption{trace.WithAttributes(append(b.Attributes, KeyChildPath.String(b.Path))...)}
	if !b.At.IsZero() {
		opts = append(opts, trace.WithTimestamp(b.At))
	}
	for _, l := range b.Links {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: l}))
	}
	if b.Parent.s != nil {
		return b.Parent.child(name, trace.SpanKindInternal, opts...)
	}
	if sc := Decode(b.Remote); sc.IsSampled() {
		return t.start(trace.ContextWithRemoteSpanContext(context.Background(), sc), name, trace.SpanKindInternal, opts...)
	}
	return t.start(context.Background(), name, trace.SpanKindInternal, append(opts, trace.WithNewRoot())...)
}

// Event adds an event to the span.
func (s Span) Event(name string, at time.Time, attrs ...attribute.KeyValue) {
	if s.s != nil {
		s.s.AddEvent(name, trace.WithTimestamp(at), trace.WithAttributes(attrs...))
	}
}

// Set adds attributes to the span.
func (s Span) Set(attrs ...attribute.KeyValue) {
	if s.s != nil {
		s.s.SetAttributes(attrs...)
	}
}

// EndAt ends the span at a time in the past; the zero time means now. If errType is not
// empty the span has failed: errType is its error.type, and message its status.
func (s Span) EndAt(at time.Time, errType, message string) {
	if s.s == nil {
		return
	}
	if errType != "" {
		s.s.SetAttributes(KeyErrorType.String(errType))
		s.s.SetStatus(codes.Error, message)
	}
	s.endAt(at)
}
