package supervisor

import (
	"fmt"
	"strings"
	"time"
)

// EventKind is what happened.
type EventKind uint8

// The kinds of [Event], and the fields each uses besides Time, Path, Supervisor and Incarnation.
const (
	// ChildStarted: an instance came up. Took, Cause.
	ChildStarted EventKind = iota
	// ChildIgnored: Start returned ErrIgnore.
	ChildIgnored
	// ChildStartFailed: a start failed. Reason, Took. Error level unless it was
	// requested, and the caller has the error; so has the caller of Start.
	ChildStartFailed
	// ChildExited: an instance ended without being asked. Reason, Took (its life).
	// Error level if a restart follows or the reason is not normal.
	ChildExited
	// ChildRestarting: a restart was decided. Attempt, Left, Delay, Cause.
	ChildRestarting
	// ChildStopping: an instance was asked to stop, or killed. Cause.
	ChildStopping
	// ChildStopped: an instance ended after ChildStopping. Reason, Took.
	// Error level unless the end was as asked: Fault.
	ChildStopped
	// ChildRemoved: the child's spec is gone.
	ChildRemoved
	// ChildLeaked: what was left of an ended instance still runs. Error level.
	ChildLeaked
	// ChildLeakEnded: what had leaked has ended after all. Took.
	ChildLeakEnded
	// ChildNoted: something changed inside an instance, see [Supervisor.Note]. Info
	// is what was noted.
	ChildNoted
	// SupervisorUp: all declared children are up. Path is the supervisor's own. Took.
	SupervisorUp
	// SupervisorGaveUp: a limit was exceeded, the children are being stopped.
	// Reason (as a GaveUp), Cause. Error level.
	SupervisorGaveUp
	// SupervisorDown: the supervisor and all its children have ended. Reason.
	// It is a supervisor's last event.
	SupervisorDown
	// SupervisorPersists: the restart budget is exceeded and the supervisor goes on, see
	// Spec.Persist. Reason (as a GaveUp), Cause, Attempt (restarts within the period),
	// Max, Left (children that are up). Error level.
	SupervisorPersists
)

// String returns the kind's name, as in "child exited".
func (k EventKind) String() string {
	return name(k, "started", "ignored", "start failed", "exited", "restarting", "stopping", "stopped",
		"removed", "leaked", "leak ended", "noted", "up", "gave up", "down", "goes on over its budget")
}

// Event is one change in a supervision tree. Events of one supervisor come in the order in which it
// decided; each is published after the snapshot that shows its outcome.
type Event struct {
	Time       time.Time
	Kind       EventKind
	Path       string // of the child, or of the supervisor itself
	Supervisor string // path of the supervisor that published it

	Incarnation uint64 // of the instance; for a start that failed, the one it would have been
	Reason      Reason
	Attempt     int           // consecutive failures of this child, this one included
	Left        int           // what remains of the supervisor's restart budget in the current window
	Max         int           // that budget
	Delay       time.Duration // until the attempt
	Took        time.Duration // see the kind
	// Cause is the path of the child whose failure led to this, if that is another one, or empty.
	Cause string
	// Fault reports that OTP would log this at error level: a failed start or an end
	// that leads to a restart (start_error, child_terminated), or an end other than the
	// one asked for (shutdown_error).
	Fault bool
	// Info is what the Info method of an instance that came up, or ended, returned;
	// of a note, what was noted.
	Info         any
	ofSupervisor bool // the child is a supervisor
	returned     bool // Start returns it as its error

	// Lost is how many events the subscriber lost just before this one.
	Lost uint64
}

// IsError reports whether OTP would log this event at error level.
func (e Event) IsError() bool {
	switch e.Kind {
	case ChildLeaked, SupervisorGaveUp, SupervisorPersists:
		return true
	case ChildExited, ChildStopped, ChildStartFailed:
		return e.Fault
	default:
		return false
	}
}

// String tells the event on one line, without the time.
func (e Event) String() string {
	var b strings.Builder
	b.WriteString(e.Path)
	if e.Incarnation > 0 {
		fmt.Fprintf(&b, "#%d", e.Incarnation)
	}
	b.WriteByte(' ')
	b.WriteString(e.Kind.String())
	switch e.Kind {
	case ChildStartFailed, ChildExited, ChildStopped, SupervisorDown:
		fmt.Fprintf(&b, ": %v", e.Reason)
	case SupervisorGaveUp, SupervisorPersists: // the kind's name says what the reason's does
		b.WriteString(strings.TrimPrefix(e.Reason.String(), "gave up"))
		if e.Kind == SupervisorPersists {
			fmt.Fprintf(&b, "; %d restarts, %d up", e.Attempt, e.Left)
		}
	case ChildRestarting:
		fmt.Fprintf(&b, ": attempt %d, %d of %d left", e.Attempt, e.Left, e.Max)
		if e.Delay > 0 {
			fmt.Fprintf(&b, ", in %v", e.Delay.Round(time.Millisecond))
		} else {
			b.WriteString(", at once")
		}
	case ChildNoted:
		fmt.Fprintf(&b, ": %v", e.Info)
	case ChildStarted, ChildIgnored, ChildStopping, ChildRemoved, ChildLeaked, ChildLeakEnded, SupervisorUp:
	}
	if e.Cause != "" && e.Cause != e.Path {
		fmt.Fprintf(&b, " (because of %s)", e.Cause)
	}
	if e.Lost > 0 {
		fmt.Fprintf(&b, " (%d events lost before)", e.Lost)
	}
	return b.String()
}
