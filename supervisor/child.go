package supervisor

import (
	"context"
	"errors"
)

// ErrIgnore is returned by [Starter.Start] if the child should not run now. That is
// not a failure: the spec is kept with nothing running (a temporary one is deleted),
// and RestartChild may try again. It is OTP's ignore.
var ErrIgnore = errors.New("supervisor: start ignored")

// Starter starts a child.
type Starter interface {
	// Start returns when the child is up and others may depend on it: the next child is not started
	// before. It may block. It runs on a new goroutine, once at a time for one child. When ctx ends
	// it must give up soon and return an error. ctx ends after Start has returned as well, so the
	// child must not depend on it; its values may be kept.
	//
	// On success the supervisor takes ownership of the instance and waits for Done. On
	// error nothing may be left running. A panic counts as an error.
	Start(ctx context.Context, inc Incarnation) (Instance, error)
}

// StarterFunc makes a function a [Starter].
type StarterFunc func(ctx context.Context, inc Incarnation) (Instance, error)

// Start calls f.
func (f StarterFunc) Start(ctx context.Context, inc Incarnation) (Instance, error) {
	return f(ctx, inc)
}

// Incarnation is the identity of an instance.
type Incarnation struct {
	Path string // IDs from the root down, joined by "/"
	ID   string // the last part of Path
	N    uint64 // 1 for the first that comes up under this spec, then 2, 3, …; see [Supervisor.Note]
}

// Instance is a child that is up. Done, Reason, Stop and Kill are its life; the other
// methods describe it. Embed [Base] and write only the methods that have something to say,
// or embed [Termination], which implements Done and Reason too. A wrapper around another
// instance embeds that instance.
//
// All methods may be called from any goroutine. All but Turn are called on the supervisor's own
// goroutine too, so they must not block, nor panic, which would end the program.
type Instance interface {
	// Done is closed when the instance has ended for good and nothing of it runs
	// any more. An operating system process has been reaped by then.
	Done() <-chan struct{}
	// Reason returns how it ended. It is called after Done.
	Reason() Reason
	// Stop asks it to end. Idempotent.
	Stop()
	// Kill ends it by force: Done follows without its help. Idempotent.
	Kill()

	// Info returns what the snapshot and the events show of it, or nil. The value is immutable.
	// Info is called when the instance is up, and at each [Supervisor.Note] of the child.
	Info() any
	// Leaked is called after Done. It returns nil, or, for an instance that could
	// not be killed, a channel that is closed when what it left running has ended.
	Leaked() <-chan struct{}
	// Snapshot returns the tree below it: Children, Strategy, Max, Used, Counts and
	// Leaked are looked at. It is called for each snapshot of a supervisor above.
	Snapshot() Node
	// Turn returns nil once the goroutines that run it have done what they were
	// told before, or the error of ctx, which ends the wait. See [Supervisor.Turn].
	Turn(ctx context.Context) error
}

// Base is the part of an [Instance] that describes it, for one with nothing to say: no
// info, nothing leaked, no children, and its turn taken at once.
type Base struct{}

// Info returns nil.
func (Base) Info() any { return nil }

// Leaked returns nil.
func (Base) Leaked() <-chan struct{} { return nil }

// Snapshot returns an empty node.
func (Base) Snapshot() Node { return Node{} }

// Turn returns nil.
func (Base) Turn(context.Context) error { return nil }

// base is embedded where the field is not to be exported.
type base = Base

// Child names a child that was started.
type Child struct {
	Path        string
	ID          string
	Incarnation uint64
	Info        any // what the instance's Info method returned, or nil
	// Undefined reports that Start returned ErrIgnore: nothing runs.
	Undefined bool
}
