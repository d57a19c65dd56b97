package tracing

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Span is one span of Coppice, or nothing. It is a small value; copies are the
// same span. The zero Span is off: its methods do nothing and allocate nothing.
// A span of a trace that is not sampled records nothing either, but it carries its context,
// so that the sampler's decision holds in the next process.
//
// Methods may be called by any goroutine. End a span once; further ends are ignored.
//
// Each method that is called for every connection is a check that the compiler inlines, and
// a call that does the work for a sampled span.
type Span struct {
	t       *Tracer
	s       trace.Span // nil when off or not sampled
	carrier [Size]byte // own context; of the nearest started ancestor when not sampled
}

// Sampled reports whether the span is recorded.
func (s Span) Sampled() bool { return s.s != nil }

// Carrier returns the span's context in binary form; all zero when off.
func (s Span) Carrier() [Size]byte { return s.carrier }

// Context returns the span's context; the zero value, which is not valid, when off.
func (s Span) Context() trace.SpanContext {
	if s.s != nil {
		return s.s.SpanContext()
	}
	return Decode(s.carrier)
}

// Queue starts the span of a connection that waits for a worker of the pool.
func (s Span) Queue(pool string) Span {
	if s.s == nil {
		return s
	}
	return s.queue(pool)
}

func (s Span) queue(pool string) Span {
	q := s.child(SpanQueue, trace.SpanKindInternal)
	if q.s != nil && pool != "" {
		q.s.SetAttributes(KeyPool.String(pool))
	}
	return q
}

// Handoff describes the offer of a handle to another process. Zero fields are left out of the span.
type Handoff struct {
	Pool        string // the receiver's pool
	Target      string // the receiving process, as "web/0"
	Incarnation int    // of the receiver
	Kind        string // of the handle: conn, listener, packet, file
	Repeats     Span   // the hand-off of the same handle that came back: becomes a link
}

// Handoff starts the span of an offer. Its Carrier goes with the handle. The
// caller ends it with [Span.EndOutcome] once the offer is settled.
func (s Span) Handoff(h Handoff) Span {
	if s.s == nil {
		return s
	}
	return s.handoff(h)
}

func (s Span) handoff(h Handoff) Span {
	var o Span
	if h.Repeats.s != nil {
		o = s.child(SpanHandoff, trace.SpanKindProducer, trace.WithLinks(trace.Link{SpanContext: h.Repeats.Context()}))
	} else {
		o = s.child(SpanHandoff, trace.SpanKindProducer)
	}
	if o.s == nil {
		return o
	}
	o.s.SetAttributes(KeyNetworkTransport.String("unix"))
	setHandle(o.s, h.Pool, h.Kind)
	if h.Target != "" {
		o.s.SetAttributes(KeyHandoffTarget.String(h.Target), KeyIncarnation.Int(h.Incarnation))
	}
	return o
}

// Serve starts the span of a claimed connection. The caller ends it when the connection is closed.
func (s Span) Serve() Span {
	if s.s == nil {
		return s
	}
	return s.child(SpanServe, trace.SpanKindInternal)
}

// child starts a span under s, which is sampled.
func (s Span) child(name string, kind trace.SpanKind, opts ...trace.SpanStartOption) Span {
	return s.t.start(trace.ContextWithSpan(context.Background(), s.s), name, kind, opts...)
}

// End ends the span without an error.
func (s Span) End() {
	if s.s != nil {
		s.s.End()
	}
}

// EndError ends the span, as failed unless err is nil. The span's error.type is
// the Go type of the innermost error, its status the text of err.
func (s Span) EndError(err error) {
	if s.s != nil {
		s.endError(err)
	}
}

func (s Span) endError(err error) {
	if err != nil {
		s.s.SetAttributes(KeyErrorType.String(errorType(err)))
		s.s.SetStatus(codes.Error, err.Error())
	}
	s.s.End()
}

// EndOutcome ends a hand-off at a time in the past; the zero time means now. With any
// outcome but [Claimed] the span has failed, with the outcome as its error.type. reason is
// the cause in a few words of low cardinality, or empty.
func (s Span) EndOutcome(at time.Time, o HandoffOutcome, reason string) {
	if s.s != nil {
		s.endOutcome(at, o, reason)
	}
}

func (s Span) endOutcome(at time.Time, o HandoffOutcome, reason string) {
	s.s.SetAttributes(KeyHandoffOutcome.String(string(o)))
	if reason != "" {
		s.s.SetAttributes(KeyHandoffReason.String(reason))
	}
	if o != Claimed {
		s.s.SetAttributes(KeyErrorType.String(string(o)))
		s.s.SetStatus(codes.Error, reason)
	}
	s.endAt(at)
}

// endAt ends the span at a time in the past; the zero time means now.
func (s Span) endAt(at time.Time) {
	if at.IsZero() {
		s.s.End()
		return
	}
	s.s.End(trace.WithTimestamp(at))
}

// errorType returns the Go type of the innermost error that err wraps.
func errorType(err error) string {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return fmt.Sprintf("%T", err)
		}
		err = u.Unwrap()
	}
}
