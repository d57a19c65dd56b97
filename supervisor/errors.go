package supervisor

import (
	"errors"
	"fmt"
)

// The errors of the calls on a running supervisor. They come wrapped in a
// [*CallError]; use errors.Is.
var (
	// ErrNotFound: there is no child of that ID.
	ErrNotFound = errors.New("no such child")
	// ErrAlreadyStarted: StartChild with the ID of a child that is running.
	ErrAlreadyStarted = errors.New("child is already started")
	// ErrAlreadyPresent: StartChild with the ID of a spec whose child is not running.
	ErrAlreadyPresent = errors.New("child spec is already present")
	// ErrRunning: the child must not be running for this call.
	ErrRunning = errors.New("child is running")
	// ErrRestarting: the supervisor is about to restart the child.
	ErrRestarting = errors.New("child is restarting")
	// ErrDynamic: a Dynamic supervisor does not offer this call. OTP says simple_one_for_one.
	ErrDynamic = errors.New("not offered by a dynamic supervisor")
	// ErrStopped: the supervisor has ended or is about to. OTP says noproc.
	ErrStopped = errors.New("supervisor has stopped")
	// ErrClosed: a Subscription has delivered its last event.
	ErrClosed = errors.New("supervisor: subscription closed")
	// ErrStartTimeout: a start took longer than ChildSpec.StartTimeout. It is
	// the cause of the start's context, and found in the StartError.
	ErrStartTimeout = errors.New("start timed out")
	// ErrStartCancelled: the start was no longer wanted, because the child was
	// terminated or the supervisor stopped. It is the cause of the context.
	ErrStartCancelled = errors.New("start cancelled")
)

// CallError is the error of a call on a running supervisor.
type CallError struct {
	Op   string // the method: "StartChild", …
	Path string // of the supervisor
	ID   string // of the child, if the call named one
	// Err is one of this package's errors, a *StartError, a *SpecError or
	// several joined, or the context's error if the wait was given up.
	Err error
}

func (e *CallError) Error() string {
	if e.ID == "" {
		return fmt.Sprintf("supervisor: %s: %s: %v", e.Op, e.Path, e.Err)
	}
	return fmt.Sprintf("supervisor: %s: %s/%s: %v", e.Op, e.Path, e.ID, e.Err)
}

// Unwrap returns Err.
func (e *CallError) Unwrap() error { return e.Err }

// StartError says that a child did not start. When the child is a supervisor
// Err is in turn the StartError of the child that failed below it.
type StartError struct {
	Path string // of the child that failed
	Err  error  // what its Start returned; a panic is a *ReasonError
}

func (e *StartError) Error() string {
	if inner, ok := e.Err.(*StartError); ok { //nolint:errorlint // Err itself: what a wrapper says is not to be lost
		return inner.Error()
	}
	return fmt.Sprintf("supervisor: %s: start: %v", e.Path, e.Err)
}

// Unwrap returns Err.
func (e *StartError) Unwrap() error { return e.Err }

// SpecError is one thing that is wrong with a spec.
type SpecError struct {
	Path  string // of the supervisor or child, from the root of the spec
	Field string // the field, or fields, in question
	Value any    // what it holds
	Msg   string // what it must be
}

func (e *SpecError) Error() string {
	if e.Value == nil {
		return fmt.Sprintf("supervisor: spec %s: %s %s", e.Path, e.Field, e.Msg)
	}
	return fmt.Sprintf("supervisor: spec %s: %s = %v: %s", e.Path, e.Field, e.Value, e.Msg)
}
