package jobs

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

func tracer() trace.Tracer { return otel.GetTracerProvider().Tracer(tracing.ScopeName) }

func startCall(ctx context.Context, pool, name string) (context.Context, trace.Span) {
	return tracer().Start(ctx, tracing.SpanCall, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(tracing.KeyPool.String(pool), tracing.KeyFunction.String(name)))
}

// startRun returns ctx with a span below that of the caller.
func startRun(ctx, caller context.Context, name string) (context.Context, trace.Span) {
	ctx = trace.ContextWithSpan(ctx, trace.SpanFromContext(caller))
	return tracer().Start(ctx, tracing.SpanRun, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(tracing.KeyFunction.String(name)))
}

func endSpan(s trace.Span, failed bool, text string) {
	if failed && s.IsRecording() {
		s.SetStatus(codes.Error, text)
	}
	s.End()
}
