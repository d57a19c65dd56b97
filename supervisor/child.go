package supervisor

import (
	"context"
	"errors"
)

// ErrIgnore is returned by [Starter.Start] to say that the child is not wanted
// now. That is no failure: the spec is kept with nothing running (a temporary
// one is dropped), and RestartChild may try again. It is OTP's ignore.
var ErrIgnore = errors.New("supervisor: start ignored")

// Starter starts a child.
type Starter interface {
	// Start returns when the child is up and ready to be depended on: the
	// next child is not started before. It may block; it runs on a goroutine
	// of its own, once at a time for one child. The end of ctx asks it to
	// give up soon and return an error; ctx ends also after Start has
	// returned, so the child must not live by it. Its values may be kept.
	//
	// On success the instance is owned by the supervisor, which will wait for
	// Done. On error nothing may be left running. A panic counts as an error.
	Start(ctx context.Context, inc Incarnation) (Instance, error)
}

// StarterFunc makes a function a [Starter].
type StarterFunc func(ctx context.Context, inc Incarnation) (Instance, error)

// Start calls f.
func (f StarterFunc) Start(ctx context.Context, inc Incarnation) (Instance, error) {
	return f(ctx, inc)
}

// Incarnation tells a child who it is.
type Incarnation struct {
	Path string // IDs from the root down, joined by "/"
	ID   string // the last part of Path
	N    uint64 // 1 for the first instance that comes up under this spec, then 2, 3, …
}

// Instance is a child that is up. All methods may be called from any
// goroutine, and none may block or panic: they are called on the supervisor's
// own goroutine, where a panic ends the program.
//
// An instance may offer more by these methods:
//
//	Info() any                    // immutable; shown in the snapshot; asked again at each Note
//	Snapshot() Node               // its own part of the tree, for what has children; must not wait
//	Leaked() <-chan struct{}      // asked after Done: nil, or a channel that is closed when what was left running has ended
type Instance interface {
	// Done is closed when the instance has ended for good; nothing of it runs
	// any more (an operating system process: reaped).
	Done() <-chan struct{}
	// Reason says how it ended. Valid after Done.
	Reason() Reason
	// Stop asks it to end. Idempotent.
	Stop()
	// Kill ends it by force, and Done follows without its help. Idempotent.
	Kill()
}

// leaker is the optional part of Instance for what cannot be killed.
type leaker interface{ Leaked() <-chan struct{} }

// informer and snapshotter are the optional parts of Instance for the snapshot.
type (
	informer    interface{ Info() any }
	snapshotter interface{ Snapshot() Node }
	turner      interface{ Turn(context.Context) error }
)

// notifier is implemented by this package's own instances: it saves the
// goroutine that waits for Done. The function is called once, after Done.
type notifier interface{ onDone(func()) }

// instant is implemented by starters of this package whose Start does not
// block: it saves the goroutine for the start.
type instant interface{ startsAtOnce() }

// Child names a child that was started.
type Child struct {
	Path        string
	ID          string
	Incarnation uint64
	Info        any // what the instance's Info method returned, or nil
	// Undefined says that Start returned ErrIgnore: nothing runs.
	Undefined bool
}
