package otlp

import (
	"context"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// processor is the SDK's end of a queue of spans. The SDK's own batch processor
// does not say what it dropped.
type processor struct{ spans *queue[sdktrace.ReadOnlySpan] }

func (p processor) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

func (p processor) OnEnd(s sdktrace.ReadOnlySpan) {
	if s.SpanContext().IsSampled() {
		p.spans.put(s)
	}
}

func (p processor) ForceFlush(ctx context.Context) error { return p.spans.flush(ctx) }

func (p processor) Shutdown(ctx context.Context) error { return p.spans.close(ctx) }
