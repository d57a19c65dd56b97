package jobs

import (
	"context"
	"fmt"
	"strings"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

// A FuncError is the error that the function returned. Only its text crosses processes.
type FuncError struct{ Text string }

func (e *FuncError) Error() string { return e.Text }

// A PanicError says that the function panicked. Its worker goes on.
type PanicError struct{ Value, Stack string }

func (e *PanicError) Error() string { return "jobs: panic: " + e.Value }

// A DiedError says that the worker died with the call in it, and how. The call may have run, wholly
// or in part.
type DiedError struct {
	Worker string        // its name, as "resize/workers/0"
	Reason string        // its exit reason, in one line
	Exit   *coppice.Exit // nil if it was not a process, or left no more than the reason
	Deaths int           // of workers that had the call; more than 1 if it was run again
}

func (e *DiedError) Error() string {
	return fmt.Sprintf("jobs: worker %s died with the call: %s", e.Worker, e.Reason)
}

// Unwrap returns the Exit, if there is one.
func (e *DiedError) Unwrap() error {
	if e.Exit == nil {
		return nil
	}
	return e.Exit
}

// A DeadlineError says that the run took longer than its Timeout. It is context.DeadlineExceeded.
type DeadlineError struct {
	Timeout time.Duration
	// Killed: the function did not return within Grace, and its worker was killed for it. Otherwise
	// it returned an error.
	Killed bool
	Text   string // of the function's error, or the worker's exit reason
}

func (e *DeadlineError) Error() string {
	what := "ended with its context: " + e.Text
	if e.Killed {
		what = "its worker was killed: " + strings.TrimPrefix(e.Text, "killed: ")
	}
	return fmt.Sprintf("jobs: the call took more than %v: %s", e.Timeout, what)
}

// Is reports whether target is context.DeadlineExceeded.
func (e *DeadlineError) Is(target error) bool { return target == context.DeadlineExceeded }

// A CanceledError says that the caller's context ended first. The call ends too: one that waits is
// not run; one that runs has Grace to return, and then its worker is killed.
type CanceledError struct{ Cause error } // of the context

func (e *CanceledError) Error() string { return "jobs: the call was cancelled: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *CanceledError) Unwrap() error { return e.Cause }

// A QuarantinedError says that the call did not run because others with its key killed workers.
type QuarantinedError struct {
	Key    string
	Deaths int    // that it explains
	Reason string // of the last one
	// Probe is how long it takes until one call of the key is let through.
	Probe time.Duration
}

func (e *QuarantinedError) Error() string {
	return fmt.Sprintf("jobs: key %q is quarantined, for %d deaths, the last: %s", e.Key, e.Deaths, e.Reason)
}

// A FullError says that the queue had no room for the call, or, with Err, that the way to it had
// none, or that the inputs of calls are too long together. The call has not run.
type FullError struct {
	Bound int
	Err   error
}

func (e *FullError) Error() string {
	if e.Err != nil {
		return "jobs: " + e.Err.Error()
	}
	return fmt.Sprintf("jobs: %d calls wait, which is all that may", e.Bound)
}

// Unwrap returns Err.
func (e *FullError) Unwrap() error { return e.Err }

// A TooLargeError says that an input, an answer or a report is longer than Config.MaxBytes.
type TooLargeError struct {
	Answer    bool // it is the answer, and the call has run; or a report
	Size, Max int  // in bytes
}

func (e *TooLargeError) Error() string {
	what := "input"
	if e.Answer {
		what = "answer"
	}
	return fmt.Sprintf("jobs: the %s has %d bytes, more than %d", what, e.Size, e.Max)
}

// A GoneError says that there is no such pool, that its queue ended with the call in it, or that
// the answer could not come: Err has which. Unless that is actors.ErrNoActor the call may have run.
type GoneError struct {
	Pool string
	Err  error // of package actors
}

func (e *GoneError) Error() string { return fmt.Sprintf("jobs: pool %s: %v", e.Pool, e.Err) }

// Unwrap returns Err.
func (e *GoneError) Unwrap() error { return e.Err }

// A RefusedError says that the call cannot be made: the pool has no such function, or a value
// cannot be encoded, or cannot cross, or is not what the function takes or the caller expects.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return "jobs: refused: " + e.Why }
