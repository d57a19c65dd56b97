package coppice

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// EventKind is what happened.
type EventKind uint8

// The kinds of [Event], and the fields that each uses besides Time, Path and Identity.
const (
	// ChildStarted: a child came up. Took, Cause. The workers of a reload are WorkerReplaced.
	ChildStarted EventKind = iota
	// ChildIgnored: there is nothing to start: its start returned supervisor.ErrIgnore.
	ChildIgnored
	// ChildStartFailed: a start failed. Reason, Took.
	ChildStartFailed
	// ChildExited: it ended without being asked. Reason, Took (its life). A worker that was asked
	// to is WorkerDrained.
	ChildExited
	// ChildRestarting: a restart was decided. Attempt, Left, Max, Delay, Cause.
	ChildRestarting
	// ChildStopping: it was asked to stop, or killed. Cause.
	ChildStopping
	// ChildStopped: it ended after ChildStopping. Reason, Took.
	ChildStopped
	// ChildRemoved: its spec is gone.
	ChildRemoved
	// ChildLeaked: what was left of it, after its end, still runs.
	ChildLeaked
	// ChildLeakEnded: what had leaked has ended after all. Took.
	ChildLeakEnded
	_ // supervisor.ChildNoted: those below
	// SupervisorUp: all children of a supervisor, or of a pool, are up. Took.
	SupervisorUp
	// SupervisorGaveUp: a limit was exceeded, the children are being stopped. Reason, Cause.
	SupervisorGaveUp
	// SupervisorDown: the supervisor and all its children have ended. Reason.
	SupervisorDown
	// SupervisorPersists: a pool's restart budget is exceeded, and it goes on. Reason, Cause,
	// Attempt (restarts within the period), Max, Left (workers that are up).
	SupervisorPersists

	// WorkerStarting: a worker is being started. Why. It has no ID yet.
	WorkerStarting
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
	// Err; Why, if only some slots do.
	PoolReloading
	PoolReloaded
	// PoolScaled: the pool has another size. Size, Took, Err; Why, if Pool.Autoscale changed it.
	PoolScaled

	// TreeReloading, TreeReloaded: a reload of the tree to Generation began; it is over, or failed.
	// Generation is 0 when the reload failed before it had one. Took, Err.
	TreeReloading
	TreeReloaded
	// TreeUpgrading, TreeUpgraded: an upgrade of the whole program began; the new program serves,
	// or the old one does again. Took, Err.
	TreeUpgrading
	TreeUpgraded
	// OperatorAsked: an operator has asked for something by the control endpoint. Why.
	OperatorAsked
	// CanaryJudged: a pool's new generation begins to be judged, is held, or there is a verdict.
	// Why: that, with both generations in numbers.
	CanaryJudged
	// HostsOperated: what an operator has asked of the cluster goes on. Why: how.
	HostsOperated
	// KeyQuarantined: requests, or connections, of a key are refused from now on, or no longer.
	// Why: which key, and why.
	KeyQuarantined
)

var eventKinds = [...]string{
	"started", "ignored", "start failed", "exited", "restarting", "stopping", "stopped", "removed",
	"leaked", "leak ended", "noted", "up", "gave up", "down", "goes on over its budget",
	"starting", "failed", "replaced", "spare ready", "draining", "drain cut", "drained", "due",
	"reloading", "reloaded", "scaled",
	"tree reloading", "tree reloaded", "tree upgrading", "tree upgraded", "asked by an operator", "canary", "hosts", "quarantine",
}

// String returns the kind in words.
func (k EventKind) String() string {
	if int(k) < len(eventKinds) {
		return eventKinds[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An Event is one change in the tree; see [Runtime.Events]. Events of one supervisor, and those
// inside one pool, come in the order in which it decided. [Runtime.Snapshot] shows what an event
// tells from before the event on.
type Event struct {
	Cursor uint64 // counts the events of the tree, from 1
	Lost   uint64 // how many events before this one the reader has missed, because they are no longer kept

	Time time.Time
	Kind EventKind

	// Path is the child's place in the tree, for example web/0; of a change inside a pool, the
	// pool's; "" = the root.
	Path string

	// Identity is the process's, if there is one. The Slot of an event inside a pool is that of the
	// coming worker while the worker has no Name, and None if the event is the pool's.
	Identity

	Reason supervisor.Reason // how it ended, or why it did not start
	Err    error
	Why    string // start, reload, roll back, recycle, refill, spare, scale, stop, cap; or the limit that was reached
	Cause  string // the path of another child whose failure led to this

	Attempt int           // consecutive failures of this child, this one included
	Left    int           // what remains of the restart budget of its supervisor
	Max     int           // that budget
	Delay   time.Duration // until the attempt
	Took    time.Duration // see the kind
	Limit   time.Duration // the time that it has
	Forced  int           // connections cut at the deadline
	Size    int

	// Fault reports that Erlang/OTP would log this at error level: a start that failed, an end that
	// leads to a restart, an end other than the one asked for, a supervisor that gave up.
	Fault bool
}

// String returns one line, without the time.
func (e Event) String() string {
	var b strings.Builder
	switch {
	case e.Name != "" && e.ID != 0:
		fmt.Fprintf(&b, "%s#%d ", e.Name, e.ID)
	case e.inPool() && e.Slot != pool.Spare && e.Kind <= WorkerDue:
		fmt.Fprintf(&b, "%s/%d ", e.Path, e.Slot)
	default:
		fmt.Fprintf(&b, "%s ", cmp.Or(e.Path, childproto.MasterName))
	}
	b.WriteString(e.Kind.String())
	if e.Why != "" {
		fmt.Fprintf(&b, " (%s)", e.Why)
	}
	switch e.Kind {
	case WorkerStarting, PoolReloading, TreeReloading, CanaryJudged:
		fmt.Fprintf(&b, ", generation %d", e.Generation)
	case PoolReloaded, TreeReloaded:
		fmt.Fprintf(&b, ", generation %d, in %v", e.Generation, e.Took.Round(time.Millisecond))
	case TreeUpgraded:
		fmt.Fprintf(&b, " in %v", e.Took.Round(time.Millisecond))
	case WorkerReplaced, SpareReady, ChildStarted:
		fmt.Fprintf(&b, " in %v", e.Took.Round(100*time.Microsecond))
	case DrainBegan:
		fmt.Fprintf(&b, ", at most %v", e.Limit)
	case WorkerDrained:
		fmt.Fprintf(&b, " in %v, %d forced: %v", e.Took.Round(time.Millisecond), e.Forced, e.Reason)
	case WorkerFailed, ChildStartFailed, ChildExited, ChildStopped, SupervisorDown:
		fmt.Fprintf(&b, ": %v", e.Reason)
	case SupervisorGaveUp, SupervisorPersists: // the kind says what the reason begins with
		b.WriteString(strings.TrimPrefix(e.Reason.String(), "gave up"))
	case ChildRestarting:
		fmt.Fprintf(&b, ": attempt %d, %d of %d left, in %v", e.Attempt, e.Left, e.Max, e.Delay.Round(time.Millisecond))
	case PoolScaled:
		fmt.Fprintf(&b, " to %d in %v", e.Size, e.Took.Round(time.Millisecond))
	case TreeUpgrading, DrainCut, WorkerDue, ChildIgnored, ChildStopping, ChildRemoved, ChildLeaked, ChildLeakEnded, SupervisorUp, OperatorAsked, HostsOperated, KeyQuarantined:
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if e.Cause != "" {
		fmt.Fprintf(&b, " (because of %s)", e.Cause)
	}
	return b.String()
}

// inPool reports whether the event is one inside a pool, which the pool's supervisor does not see.
func (e Event) inPool() bool { return e.Kind >= WorkerStarting && e.Kind <= PoolScaled }

// eventJSON is an Event as it is encoded: without what its kind does not use, times in seconds.
type eventJSON struct {
	Cursor uint64    `json:"cursor"`
	Lost   uint64    `json:"lost,omitempty"`
	Time   time.Time `json:"time"`
	Kind   string    `json:"kind"`
	Path   string    `json:"path"`
	Text   string    `json:"text"` // the event in one line
	Identity
	Name    string  `json:"name,omitempty"`
	Slot    *int    `json:"slot,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Err     string  `json:"error,omitempty"`
	Why     string  `json:"why,omitempty"`
	Cause   string  `json:"cause,omitempty"`
	Attempt int     `json:"attempt,omitempty"`
	Left    *int    `json:"left,omitempty"`
	Max     int     `json:"max,omitempty"`
	Delay   float64 `json:"delay_seconds,omitempty"`
	Took    float64 `json:"took_seconds,omitempty"`
	Limit   float64 `json:"limit_seconds,omitempty"`
	Forced  int     `json:"forced,omitempty"`
	Size    int     `json:"size,omitempty"`
	Fault   bool    `json:"fault,omitempty"`
}

// MarshalJSON encodes the event as docs/control.md describes.
func (e Event) MarshalJSON() ([]byte, error) {
	j := eventJSON{
		Cursor: e.Cursor, Lost: e.Lost, Time: e.Time, Kind: e.Kind.String(), Path: e.Path, Text: e.String(), Identity: e.Identity, Name: e.Name,
		Why: e.Why, Cause: e.Cause, Attempt: e.Attempt, Max: e.Max,
		Delay: e.Delay.Seconds(), Took: e.Took.Seconds(), Limit: e.Limit.Seconds(), Forced: e.Forced, Size: e.Size, Fault: e.Fault,
	}
	if e.inPool() && e.Slot != None {
		j.Slot = &e.Slot
	}
	switch e.Kind {
	case WorkerFailed, WorkerDrained, ChildStartFailed, ChildExited, ChildStopped, SupervisorGaveUp, SupervisorDown, SupervisorPersists:
		j.Reason = e.Reason.String()
	default:
	}
	if e.Kind == ChildRestarting || e.Kind == SupervisorPersists {
		j.Left = &e.Left
	}
	if e.Err != nil {
		j.Err = e.Err.Error()
	}
	return json.Marshal(j)
}

// level returns the level at which the log has an event inside a pool: what the supervisor's events
// do not tell at Info, and each change once.
func (e Event) level() slog.Level {
	switch e.Kind {
	case WorkerReplaced, SpareReady, DrainCut, WorkerDue, PoolScaled, CanaryJudged:
		return slog.LevelInfo
	case WorkerDrained:
		if e.Why != pool.ForStop.String() { // otherwise its supervisor has stopped it, and says so
			return slog.LevelInfo
		}
	case WorkerFailed:
		if e.Slot == pool.Spare || e.Why == pool.ForRefill.String() || e.Why == pool.ForRecycle.String() { // otherwise an error tells it
			return slog.LevelWarn
		}
	default: // its supervisor tells it, or what it is a part of
	}
	return slog.LevelDebug
}

// log logs an event inside a pool without empty fields.
func (e Event) log(log *slog.Logger) {
	ctx, level := context.Background(), e.level()
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{slog.String("pool", e.Path)}
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
	default:
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("err", e.Err))
	}
	log.LogAttrs(ctx, level, "pool: "+e.Kind.String(), attrs...)
}
