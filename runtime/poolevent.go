package coppice

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// PoolEventKind is what happened inside a pool.
type PoolEventKind uint8

// The kinds of [PoolEvent], and the fields each uses besides Pool and Identity.
const (
	// WorkerStarting: a worker is being started. Why. It has no ID yet.
	WorkerStarting PoolEventKind = iota
	// WorkerFailed: it ended before it was ready. Why, Reason.
	WorkerFailed
	// WorkerReplaced: it is ready, and has taken the slot of a worker that still runs. Why, Took
	// (since its start was decided).
	WorkerReplaced
	// SpareReady: it is ready to take a slot. Took.
	SpareReady
	// DrainBegan: it was asked to finish its work and end. Why, Limit.
	DrainBegan
	// DrainCut: its drain is cut short, because too many drain. Why.
	DrainCut
	// WorkerDrained: it has ended after it was asked to. Why, Took, Forced, Reason.
	WorkerDrained
	// WorkerDue: it is to be recycled. Why.
	WorkerDue
	// PoolReloading, PoolReloaded: the pool rolls to Generation; it has arrived, or gave up. Took,
	// Err.
	PoolReloading
	PoolReloaded
	// PoolScaled: the pool has another size. Size, Took, Err.
	PoolScaled
)

// String returns the kind in words.
func (k PoolEventKind) String() string {
	words := []string{
		"starting", "failed", "replaced", "spare ready", "draining", "drain cut", "drained", "due",
		"reloading", "reloaded", "scaled",
	}
	if int(k) < len(words) {
		return words[k]
	}
	return fmt.Sprintf("PoolEventKind(%d)", uint8(k))
}

// PoolEvent is an event inside a pool that its supervisor does not see: a worker takes the place of
// another, or drains. It is the Info of an event of kind [supervisor.ChildNoted], in order with the
// others; see [Runtime.Subscribe].
type PoolEvent struct {
	Kind PoolEventKind
	Pool string // path

	// Identity is the worker's. Without a worker, or before there is one, it has no Name; the Slot
	// is then the slot of the coming worker, or None if the event is the pool's.
	Identity

	Why    string // start, reload, roll back, recycle, refill, spare, scale, stop, cap; or the limit that was reached
	Took   time.Duration
	Limit  time.Duration // the time that it has
	Forced int           // connections cut at the deadline
	Size   int
	Reason supervisor.Reason
	Err    error
}

// String returns one line.
func (e PoolEvent) String() string {
	var b strings.Builder
	if e.Name != "" {
		fmt.Fprintf(&b, "%s#%d ", e.Name, e.ID)
	} else if e.Slot != pool.Spare && e.Kind <= WorkerDue {
		fmt.Fprintf(&b, "%s/%d ", e.Pool, e.Slot)
	} else {
		fmt.Fprintf(&b, "%s ", e.Pool)
	}
	b.WriteString(e.Kind.String())
	if e.Why != "" {
		fmt.Fprintf(&b, " (%s)", e.Why)
	}
	switch e.Kind {
	case WorkerStarting, PoolReloading:
		fmt.Fprintf(&b, ", generation %d", e.Generation)
	case PoolReloaded:
		fmt.Fprintf(&b, ", generation %d, in %v", e.Generation, e.Took.Round(time.Millisecond))
	case WorkerReplaced, SpareReady:
		fmt.Fprintf(&b, " in %v", e.Took.Round(100*time.Microsecond))
	case DrainBegan:
		fmt.Fprintf(&b, ", at most %v", e.Limit)
	case WorkerDrained:
		fmt.Fprintf(&b, " in %v, %d forced: %v", e.Took.Round(time.Millisecond), e.Forced, e.Reason)
	case WorkerFailed:
		fmt.Fprintf(&b, ": %v", e.Reason)
	case PoolScaled:
		fmt.Fprintf(&b, " to %d in %v", e.Size, e.Took.Round(time.Millisecond))
	case DrainCut, WorkerDue:
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

// level returns the level at which the log has the event: what the supervisor's events do not tell
// at Info, and each change once.
func (e PoolEvent) level() slog.Level {
	switch e.Kind {
	case WorkerReplaced, SpareReady, DrainCut, WorkerDue, PoolScaled:
		return slog.LevelInfo
	case WorkerDrained:
		if e.Why != pool.ForStop.String() { // otherwise its supervisor has stopped it, and says so
			return slog.LevelInfo
		}
	case WorkerFailed:
		if e.Slot == pool.Spare || e.Why == pool.ForRefill.String() || e.Why == pool.ForRecycle.String() { // otherwise an error tells it
			return slog.LevelWarn
		}
	case WorkerStarting, DrainBegan, PoolReloading, PoolReloaded:
	}
	return slog.LevelDebug
}

// log logs the event without empty fields.
func (e PoolEvent) log(log *slog.Logger) {
	ctx, level := context.Background(), e.level()
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("pool", e.Pool)}
	if e.Slot != pool.Spare && e.Kind <= WorkerDue {
		attrs = append(attrs, slog.Int("slot", e.Slot))
	}
	if e.Name != "" {
		attrs = append(attrs, e.logGroup())
	} else if e.Generation != 0 {
		attrs = append(attrs, slog.Int("generation", e.Generation))
	}
	if e.Why != "" {
		attrs = append(attrs, slog.String("why", e.Why))
	}
	if e.Took > 0 {
		attrs = append(attrs, slog.Duration("took", e.Took))
	}
	if e.Limit > 0 {
		attrs = append(attrs, slog.Duration("limit", e.Limit))
	}
	switch e.Kind {
	case WorkerDrained:
		attrs = append(attrs, slog.Int("forced", e.Forced), slog.String("reason", e.Reason.String()))
	case WorkerFailed:
		attrs = append(attrs, slog.String("reason", e.Reason.String()))
	case PoolScaled:
		attrs = append(attrs, slog.Int("size", e.Size))
	case WorkerStarting, WorkerReplaced, SpareReady, DrainBegan, DrainCut, WorkerDue, PoolReloading, PoolReloaded:
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("err", e.Err))
	}
	log.LogAttrs(ctx, level, "pool: "+e.Kind.String(), attrs...)
}
