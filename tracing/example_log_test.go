package tracing_test

import (
	"context"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

// A line of the log has the trace that it belongs to, so a search finds what all processes wrote.
func ExampleLogHandler() {
	text := slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{} // the example's output is to be the same each time
		}
		return a
	}})
	log := slog.New(tracing.LogHandler(text))
	ctx := trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{ // of a request
		TraceID: trace.TraceID{1, 2}, SpanID: trace.SpanID{3},
	}))
	log.InfoContext(ctx, "charged", "amount", 12)
	// Output: level=INFO msg=charged amount=12 trace_id=01020000000000000000000000000000 span_id=0300000000000000
}
