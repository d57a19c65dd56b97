package otlp

import (
	"context"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// processor is the SDK's end of a queue of spans. The SDK's own batch processor
// does not say what it dropped, so a span's slot in the table would never be free
// again.
type processor struct {
	spans *queue[ended]
	notes *notes // nil when there is no table
}

// ended is a span that waits to be sent.
type ended struct {
	sdktrace.ReadOnlySpan
	slot int // in the table, or noSlot
}

func (p processor) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	if p.notes != nil && s.SpanContext().IsSampled() {
		p.notes.start(s)
	}
}

func (p processor) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	e := ended{s, noSlot}
	if p.notes != nil {
		e.slot = p.notes.end(s)
	}
	if !p.spans.put(e) && e.slot != noSlot {
		p.notes.dropped(e.slot)
	}
}

func (p processor) ForceFlush(ctx context.Context) error { return p.spans.flush(ctx) }

func (p processor) Shutdown(ctx context.Context) error { return p.spans.close(ctx) }
