package pool

import (
	"fmt"
	"time"
)

// Time is the time since the pool was started.
type Time = time.Duration

// WorkerSeq is a worker's number in its pool, from 1, in the order of launch; 0 is none.
type WorkerSeq uint64

// Generation is the reload that a worker belongs to.
type Generation int

// The slot numbers of workers without a slot.
const (
	Spare = -1 // it waits for one
	Trial = -2 // it is lent out, and never gets one
)

// Config is what the user has set. It is immutable.
type Config struct {
	Surge        int // slots whose new worker may start before the old one is asked to end, at once
	Unavailable  int // slots whose old worker may end before the new one starts, at once
	Spares       int // standby workers without a slot
	Draining     int // workers that may drain at once
	Recycling    int // slots that may be recycled at once
	RemovalOrder RemovalOrder
	KillRetries  int // further workers that a start gets after kills from outside

	// Retry is the first delay after a spare, or a recycling, has failed. It doubles
	// with each consecutive failure, up to MaxRetry.
	Retry, MaxRetry time.Duration
}

// RemovalOrder selects the slots that are removed when a pool is scaled down.
type RemovalOrder uint8

// The values of RemovalOrder. A slot without a ready worker is always removed first.
const (
	Youngest  RemovalOrder = iota // the one whose worker was started last
	Oldest                        // the one whose worker was started first
	LeastBusy                     // the one with the fewest open connections, then the youngest
)

// String returns youngest, oldest or least-busy.
func (c RemovalOrder) String() string {
	return name(c, "youngest", "oldest", "least-busy")
}

// EventKind is what happened.
type EventKind uint8

// The kinds of [Event].
const (
	// Start: the supervisor starts Slot. Answered by Up or Fail.
	Start EventKind = iota
	// Cancel: the supervisor cancels the start of Slot. It is still answered.
	Cancel
	// StopSlot: the supervisor asks the instance of Slot to stop.
	StopSlot
	// KillSlot: the supervisor kills the instance of Slot.
	KillSlot
	// Warmed: Worker, launched as a spare, has warmed up.
	Warmed
	// Ready: Worker is ready in its slot.
	Ready
	// Ended: Worker has ended. Final: by its restart type it is not restarted.
	// KilledOutside: something outside the tree killed it. Orderly: it returned without an error.
	Ended
	// Roll: replace every worker by one of Gen. Answered by Rolled. Back: it undoes a roll that has
	// failed in another pool, and does not fail. Share: only so many slots, unless the roll turns
	// back; 0 = all.
	Roll
	// Abort: fail the current roll, or the next one if there is none.
	Abort
	// Scale: Size slots. Busy: open connections of each slot. Answered by Scaled.
	Scale
	// Added: the supervisor has done Add. Failed: Slot did not come up and does not exist.
	Added
	// Removed: the supervisor has done Remove.
	Removed
	// Due: replace Worker by one of the same generation, also if it ends by itself and in order,
	// which is no failure. Once: at once, and with one try. Brake: a
	// limit was exceeded that a fresh worker may exceed as well, so if that happens again and
	// again, workers live longer.
	Due
	// Lend: launch a worker beside the slots. Ready may follow; Ended always does.
	Lend
	// Recall: end the workers that were lent.
	Recall
	// Tick: the time of Wake has come.
	Tick
	// Stop: the pool ends. The supervisor stops the slots. Answered by Gone.
	Stop
	// KillAll: kill every worker. Stop comes as well.
	KillAll
)

// String returns the kind's name.
func (k EventKind) String() string {
	return name(k, "start", "cancel", "stop-slot", "kill-slot", "warmed", "ready", "ended", "roll", "abort",
		"scale", "added", "removed", "due", "lend", "recall", "tick", "stop", "kill-all")
}

// Event is something that happened. The kind decides which fields are used.
type Event struct {
	Kind          EventKind
	Slot          int
	Worker        WorkerSeq
	Gen           Generation
	Size          int
	Share         int
	Busy          map[int]int
	Final         bool
	Back          bool
	Failed        bool
	KilledOutside bool
	Orderly       bool
	Brake         bool
	Once          bool
}

// Purpose is why a worker is launched, assigned to a slot, drained or killed.
type Purpose uint8

// The purposes.
const (
	ForStart   Purpose = iota // the supervisor starts its slot
	ForRoll                   // a reload
	ForBack                   // the way back from a failed reload
	ForRecycle                // its predecessor is due for recycling
	ForRefill                 // the slot's old worker was stopped first, and the new one failed
	ForSpare                  // a standby worker
	ForScale                  // its slot is removed
	ForStop                   // the pool ends
	ForCap                    // too many workers drain
	ForTrial                  // it is to serve one connection
)

// String returns the purpose as events show it.
func (w Purpose) String() string {
	return name(w, "start", "reload", "roll back", "recycle", "refill", "spare", "scale", "stop", "cap", "trial")
}

// EffectKind is what is to be done.
type EffectKind uint8

// The kinds of [Effect].
const (
	// Launch: start Worker of Gen for Slot, or as a spare. Warmed or Ready may follow;
	// Ended always does.
	Launch EffectKind = iota
	// Assign: give the spare Worker its Slot. Ready follows, or Ended.
	Assign
	// Up: the start of Slot has succeeded; Worker is its instance.
	Up
	// Fail: the start of Slot has failed, since Worker ended; 0: it was cancelled.
	Fail
	// Swap: Worker is the instance of Slot from now on.
	Swap
	// Down: the instance of Slot has ended as Worker did; 0: as the supervisor asked.
	Down
	// Drain: ask Worker to drain and end. Brief: it has no replacement.
	Drain
	// ForceDrain: end a draining Worker now.
	ForceDrain
	// Kill: kill Worker.
	Kill
	// Add: have the supervisor start Slot. Added follows.
	Add
	// Remove: have the supervisor stop and delete Slot. Removed follows.
	Remove
	// Rolled: the roll is over, with Result. Worker, in Slot, made it fail.
	Rolled
	// Scaled: the scaling is over, with Result. Slot is the one that failed; Size is the
	// number of slots now.
	Scaled
	// Hold: Worker, in Slot, is due too soon after the one before it: it works on until At.
	Hold
	// Wake: send a Tick At; this replaces earlier ones.
	Wake
	// Gone: after Stop, no worker is left.
	Gone
)

// String returns the kind's name.
func (k EffectKind) String() string {
	return name(k, "launch", "assign", "up", "fail", "swap", "down", "drain", "force-drain", "kill",
		"add", "remove", "rolled", "scaled", "hold", "wake", "gone")
}

// Result is how a roll or a scaling ended.
type Result uint8

// The values of Outcome.
const (
	Done      Result = iota
	Failed           // a worker failed
	Cancelled        // Abort
	Stopped          // the pool ended
)

// String returns the result in lower case.
func (o Result) String() string { return name(o, "done", "failed", "cancelled", "stopped") }

// Effect is something to be done, in the order given. The kind decides which fields are used.
type Effect struct {
	Kind   EffectKind
	Slot   int
	Worker WorkerSeq
	Old    WorkerSeq // of Swap: the slot's worker until now; 0: it had ended
	Gen    Generation
	Why    Purpose
	Brief  bool
	Result Result
	Size   int
	At     Time
}

func name[T ~uint8](v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%T(%d)", v, uint8(v))
}
