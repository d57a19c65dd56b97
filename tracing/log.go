package tracing

import (
	"context"
	"log/slog"
	"slices"

	"go.opentelemetry.io/otel/trace"
)

// LogHandler returns a handler that adds trace_id and span_id to each record whose context
// has a span, sampled or not, and gives the record to h. The ids are never in a group, so a
// search by trace_id finds all lines of a trace, whichever processes wrote them. Log with
// InfoContext(ctx, …): a record without a context has no ids.
//
// In a worker the record's line reaches the master's output like any other line.
func LogHandler(h slog.Handler) slog.Handler { return logHandler{Handler: h, root: h} }

type logHandler struct {
	slog.Handler
	root    slog.Handler                      // before the first group was opened
	grouped []func(slog.Handler) slog.Handler // what was done to it since
}

func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return h.Handler.Handle(ctx, r)
	}
	ids := []slog.Attr{slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String())}
	if len(h.grouped) == 0 {
		r = r.Clone()
		r.AddAttrs(ids...)
		return h.Handler.Handle(ctx, r)
	}
	with := h.root.WithAttrs(ids)
	for _, f := range h.grouped {
		with = f(with)
	}
	return with.Handle(ctx, r)
}

func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if len(h.grouped) == 0 {
		with := h.Handler.WithAttrs(attrs)
		return logHandler{Handler: with, root: with}
	}
	return h.then(func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

func (h logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h // as slog wants it
	}
	return h.then(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

func (h logHandler) then(f func(slog.Handler) slog.Handler) slog.Handler {
	return logHandler{f(h.Handler), h.root, append(slices.Clip(h.grouped), f)}
}
