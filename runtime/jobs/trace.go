package jobs

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

func tracer() trace.Tracer { return otel.GetTracerProvider().Tracer(tracing.ScopeName) }

func startCall(ctx context.Context, pool, name, key string) (context.Context, trace.Span) {
	ctx, span := tracer().Start(ctx, tracing.SpanCall, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(tracing.KeyPool.String(pool), tracing.KeyFunction.String(name)))
	if key != "" {
		span.SetAttributes(tracing.KeyJobKey.String(key))
	}
	return ctx, span
}

// endCall ends the span of a call, which has the last death that the call's caller is told.
func endCall(s trace.Span, err error) {
	if died, ok := errors.AsType[*DiedError](err); ok {
		exited(s, died.Worker, died.Reason)
	}
	errorType := ""
	if err != nil {
		errorType = fmt.Sprintf("%T", err)
	}
	endSpan(s, errorType, fmt.Sprint(err))
}

// exited adds the end of a worker that had the call.
func exited(s trace.Span, worker, reason string) {
	if s.IsRecording() {
		s.AddEvent(tracing.EventExit, trace.WithAttributes(tracing.KeyChildPath.String(worker), tracing.KeyExitReason.String(reason)))
	}
}

// startRun returns ctx with a span below that of the caller.
func startRun(ctx, caller context.Context, m *run) (context.Context, trace.Span) {
	ctx = trace.ContextWithSpan(ctx, trace.SpanFromContext(caller))
	return tracer().Start(ctx, tracing.SpanRun, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(tracing.KeyFunction.String(m.Func), tracing.KeyRun.Int(m.Run)))
}

// endSpan ends a span, which has failed if there is a type of error.
func endSpan(s trace.Span, errorType, text string) {
	if errorType != "" && s.IsRecording() {
		s.SetStatus(codes.Error, text)
		s.SetAttributes(tracing.KeyErrorType.String(errorType))
	}
	s.End()
}

// queued starts the span of a call that waits in the queue, if its caller is traced.
func (c *pendingCall) queued() {
	if trace.SpanContextFromContext(c.ctx).IsValid() {
		_, c.span = tracer().Start(c.ctx, tracing.SpanQueued)
	}
}

// left ends that span, if there is one.
func (c *pendingCall) left(errorType, text string, attrs ...attribute.KeyValue) {
	if c.span != nil {
		if c.span.IsRecording() {
			c.span.SetAttributes(attrs...)
		}
		endSpan(c.span, errorType, text)
		c.span = nil
	}
}

// refused ends the span of a call that is not run, as o says.
func (c *pendingCall) refused(o *outcome) {
	e, ok := o.end()
	if !ok {
		c.left("", "") // it comes again
		return
	}
	if e == endQuarantined && c.span != nil && c.span.IsRecording() {
		c.span.AddEvent(tracing.EventQuarantined, trace.WithAttributes(tracing.KeyJobKey.String(c.submit.Options.Key), tracing.KeyExitReason.String(o.Text)))
	}
	c.left(e.String(), o.Text)
}

// again starts spans for those of the calls, which a worker had, that wait to run again.
func (q *queueActor) again(lost []*pendingCall) {
	for _, c := range lost {
		if q.calls[c.submit.ID] != c || !c.handed.IsZero() {
			continue
		}
		if c.queued(); c.span != nil && q.death != nil {
			exited(c.span, c.worker, q.death.Reason.String())
		}
	}
}
