package pool

import (
	"fmt"
	"time"
)

// Time is the time since the pool was started.
type Time = time.Duration

// WorkerSeq numbers a pool's workers from 1, in the order of their launch; 0 is none.
type WorkerSeq uint64

// Generation is the reload that a worker belongs to.
type Generation int

// Spare is the slot of a worker that has none.
const Spare = -1

// Config is what the user has set. It does not change.
type Config struct {
	Surge        int // slots at once whose new worker is started before the old one is asked to go
	Unavailable  int // slots at once whose old worker ends before the new one is started
	Spares       int // warm workers without a slot
	Draining     int // workers that may drain at once
	Recycling    int // slots at once that are recycled
	RemovalOrder RemovalOrder
	KillRetries  int // times that a start survives a kill from outside

	// Retry is the first delay after a spare has failed, or a recycling; it doubles
	// with each failure in a row up to MaxRetry.
	Retry, MaxRetry time.Duration
}

// RemovalOrder says which slots go when a pool is scaled down.
type RemovalOrder uint8

// The values of RemovalOrder. A slot without a ready worker goes first in any case.
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
	// Start: the supervisor wants Slot up. Answered by Up or Fail.
	Start EventKind = iota
	// Cancel: the start of Slot is no longer wanted. It is still answered.
	Cancel
	// StopSlot: the supervisor asks the instance of Slot to stop.
	StopSlot
	// KillSlot: the supervisor kills the instance of Slot.
	KillSlot
	// Warmed: Worker, launched as a spare, is warm.
	Warmed
	// Ready: Worker does its work.
	Ready
	// Ended: Worker is no more. Final: its restart type says that nobody will
	// restart it. Struck: it was killed from outside.
	Ended
	// Roll: replace every worker by one of Gen. Answered by Rolled. Back: it is the
	// way back from a roll that has failed elsewhere, and does not fail.
	Roll
	// Abort: the roll that goes on, or is next, is to fail.
	Abort
	// Scale: Size slots. Busy: open connections of each slot. Answered by Scaled.
	Scale
	// Added: what Add asked for is done. Failed: Slot did not come up, and is not there.
	Added
	// Removed: what Remove asked for is done.
	Removed
	// Due: Worker is to be replaced by one of its own generation.
	Due
	// Tick: it is time. See Wake.
	Tick
	// Stop: the pool ends. The supervisor asks the slots by itself. Answered by Gone.
	Stop
	// KillAll: everything is killed. Stop comes too.
	KillAll
)

// String returns the kind's name.
func (k EventKind) String() string {
	return name(k, "start", "cancel", "stop-slot", "kill-slot", "warmed", "ready", "ended", "roll", "abort",
		"scale", "added", "removed", "due", "tick", "stop", "kill-all")
}

// Event is something that happened. Which fields count says the kind.
type Event struct {
	Kind          EventKind
	Slot          int
	Worker        WorkerSeq
	Gen           Generation
	Size          int
	Busy          map[int]int
	Final         bool
	Back          bool
	Failed        bool
	KilledOutside bool
}

// Purpose is the purpose of a worker that is launched or appointed, or the cause of its
// going.
type Purpose uint8

// The values of Why.
const (
	ForStart   Purpose = iota // the supervisor wants its slot up
	ForRoll                   // a reload
	ForBack                   // the way back from a reload
	ForRecycle                // its predecessor is due
	ForRefill                 // its slot was stopped first, and its successor failed
	ForSpare                  // to be warm
	ForScale                  // its slot goes
	ForStop                   // the pool goes
	ForCap                    // too many drain
)

// String returns the word for it.
func (w Purpose) String() string {
	return name(w, "start", "reload", "roll back", "recycle", "refill", "spare", "scale", "stop", "cap")
}

// EffectKind is what is to be done.
type EffectKind uint8

// The kinds of [Effect].
const (
	// Launch: start Worker of Gen for Slot, or as a spare. Warmed or Ready follows,
	// and in any case Ended.
	Launch EffectKind = iota
	// Assign: give the spare Worker its Slot. Ready follows, or Ended.
	Assign
	// Up: the start of Slot has succeeded; Worker is its instance.
	Up
	// Fail: the start of Slot has failed because Worker ended; 0: it was cancelled.
	Fail
	// Swap: the instance of Slot lives on in Worker.
	Swap
	// Down: the instance of Slot has ended as Worker did; 0: as it was asked to.
	Down
	// Drain: ask Worker to drain and end. Brief: nobody takes its place.
	Drain
	// ForceDrain: end a Worker that drains now.
	ForceDrain
	// Kill: kill Worker.
	Kill
	// Add: have the supervisor start Slot. Added follows.
	Add
	// Remove: have the supervisor stop and delete Slot. Removed follows.
	Remove
	// Rolled: the roll is over. Worker: the one that failed it, of Slot; Outcome.
	Rolled
	// Scaled: the scaling is over. Outcome; Slot is the one that failed, Size how many
	// there are now.
	Scaled
	// Wake: a Tick is wanted At; earlier wishes are void.
	Wake
	// Gone: after Stop, no worker is left.
	Gone
)

// String returns the kind's name.
func (k EffectKind) String() string {
	return name(k, "launch", "assign", "up", "fail", "swap", "down", "drain", "force-drain", "kill",
		"add", "remove", "rolled", "scaled", "wake", "gone")
}

// Result is how a roll, or a scaling, ended.
type Result uint8

// The values of Outcome.
const (
	Done      Result = iota
	Failed           // a worker failed
	Cancelled        // Abort
	Stopped          // the pool ended
)

// String returns the word for it.
func (o Result) String() string { return name(o, "done", "failed", "cancelled", "stopped") }

// Effect is something to be done, in the order given. Which fields count says the kind.
type Effect struct {
	Kind   EffectKind
	Slot   int
	Worker WorkerSeq
	Old    WorkerSeq // of Swap: who had the slot; 0: it had ended
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
