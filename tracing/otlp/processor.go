package otlp

import (
	"context"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// processor puts the SDK's spans into a queue. The SDK's batch processor does not report
// what it dropped, so the slots of dropped spans in the table would never be freed.
type processor struct {
	spans    *queue[endedSpan]
	payloads *queue[payload] // into which spans go; nil in a child
	table    *spanTable      // nil when there is no table
}

// endedSpan is a span that waits to be sent.
type endedSpan struct {
	sdktrace.ReadOnlySpan
	slot int // in the table, or noSlot
}

func (p processor) OnStart(_ context.Context, s sdktrace.ReadWriteSpan) {
	if p.table != nil && s.SpanContext().IsSampled() {
		p.table.start(s)
	}
}

func (p processor) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	e := endedSpan{s, noSlot}
	if p.table != nil {
		e.slot = p.table.end(s)
	}
	if !p.spans.put(e) && e.slot != noSlot {
		p.table.dropped(e.slot)
	}
}

func (p processor) ForceFlush(ctx context.Context) error {
	if err := p.spans.flush(ctx); err != nil || p.payloads == nil {
		return err
	}
	return p.payloads.flush(ctx)
}

func (p processor) Shutdown(ctx context.Context) error { return p.spans.close(ctx) }
