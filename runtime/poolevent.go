package coppice

import (
	"fmt"
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
