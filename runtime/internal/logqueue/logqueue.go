// Package logqueue keeps a log handler that blocks or panics from holding up the code that logs.
package logqueue

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/queue"
	"github.com/coppice-go/coppice/supervisor"
)

const (
	// MaxQueue bounds the records that wait for the handler, in bytes: their texts and recordCost
	// each. Further records are lost, and counted in a separate record once the handler takes
	// records again.
	MaxQueue = 4 << 20

	recordCost = 256
)

// Handler is a slog.Handler that passes records on to another handler, which may block: one after
// another, on a separate goroutine. Handle neither blocks nor fails. A record is complete when it
// is queued: its values are resolved, durations are texts, and each text is cut by
// [supervisor.Cut].
type Handler struct {
	to    slog.Handler
	q     *queue.Queue[entry]         // shared by the handlers made from the first, as is level
	level *atomic.Pointer[slog.Level] // set by SetLevel
}

type entry struct {
	to   slog.Handler
	ctx  context.Context
	r    slog.Record
	cost int
}

// New returns a Handler that passes records on to to.
func New(to slog.Handler) *Handler {
	return &Handler{to: to, level: new(atomic.Pointer[slog.Level]), q: queue.New(queue.Config[entry]{
		Max: MaxQueue, Take: entry.write, Cost: func(e entry) int { return e.cost },
		Lost: func(n uint64) entry {
			r := slog.NewRecord(time.Now(), slog.LevelWarn, "records of the log were lost: they were not taken in time", 0)
			r.AddAttrs(slog.Uint64("records", n))
			return entry{to, context.Background(), r, recordCost}
		},
	})}
}

// write gives the record to the handler. A handler that panics must not end the tree.
func (e entry) write() error {
	defer func() { _ = recover() }()
	return e.to.Handle(e.ctx, e.r)
}

// Enabled asks the other handler, whose Enabled must not block, unless a level is set.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool {
	if set := h.level.Load(); set != nil {
		return l >= *set
	}
	return h.to.Enabled(ctx, l)
}

// SetLevel sets the level from which on records are passed on; nil = what the other handler says.
func (h *Handler) SetLevel(l *slog.Level) { h.level.Store(l) }

// Level returns what SetLevel has set.
func (h *Handler) Level() *slog.Level { return h.level.Load() }

// Handle queues the record.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	e := entry{to: h.to, ctx: context.WithoutCancel(ctx), cost: recordCost}
	e.r = slog.NewRecord(r.Time, r.Level, supervisor.Cut(r.Message), r.PC)
	e.cost += len(e.r.Message)
	r.Attrs(func(a slog.Attr) bool {
		a.Value = freeze(a.Value, &e.cost)
		e.r.AddAttrs(a)
		return true
	})
	h.q.Put(e)
	return nil
}

// WithAttrs returns a Handler of the same queue.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	frozen := make([]slog.Attr, len(attrs))
	var cost int
	for i, a := range attrs {
		frozen[i] = slog.Attr{Key: a.Key, Value: freeze(a.Value, &cost)}
	}
	return &Handler{h.to.WithAttrs(frozen), h.q, h.level}
}

// WithGroup returns a Handler of the same queue.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.to.WithGroup(name), h.q, h.level}
}

// Flush waits until every record is written, at most d, and reports whether it is.
func (h *Handler) Flush(d time.Duration) bool { return h.q.Flush(d) }

// freeze returns v as it is now, with its texts cut, and adds its size to cost.
func freeze(v slog.Value, cost *int) slog.Value {
	v = v.Resolve()
	switch v.Kind() {
	case slog.KindString:
		v = slog.StringValue(supervisor.Cut(v.String()))
		*cost += len(v.String())
	case slog.KindGroup:
		attrs := make([]slog.Attr, len(v.Group()))
		for i, a := range v.Group() {
			attrs[i] = slog.Attr{Key: a.Key, Value: freeze(a.Value, cost)}
		}
		v = slog.GroupValue(attrs...)
	case slog.KindDuration: // nanoseconds, in JSON
		v = slog.StringValue(Readable(v.Duration()))
	case slog.KindAny:
		switch x := v.Any().(type) {
		case nil:
		case error:
			whole := fmt.Sprint(x) // it recovers a panic of Error
			e := &said{text: supervisor.Cut(whole)}
			if len(whole) <= supervisor.MaxText { // a longer text is not kept alive
				e.err = x
			}
			v = slog.AnyValue(e)
			*cost += len(e.text)
		default:
			text := supervisor.Cut(fmt.Sprintf("%+v", x))
			v = slog.StringValue(text)
			*cost += len(text)
		}
	default: // a number, a time: it does not change
	}
	return v
}

// said is an error with its text at the time when it was logged.
type said struct {
	text string
	err  error
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.err }

// Readable returns d with three or four digits.
func Readable(d time.Duration) string {
	unit := time.Nanosecond
	for d >= 10_000*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}
