package coppice

import (
	"errors"
	"fmt"
	"strings"

	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/supervisor"
)

// Errors of this package. The errors of the tree's children are in package supervisor (GaveUp among
// them), those of the kernel in syscall.
var (
	// ErrInChild is returned by Start in a process that is already a child of a tree and cannot
	// start a tree.
	ErrInChild = errors.New("coppice: this process is a child of a tree and cannot start one")

	// ErrRunning is returned by Start while another tree of this program runs.
	ErrRunning = errors.New("coppice: a tree is already running in this program")

	// ErrUnsupported is returned for what this system or this release does not support.
	ErrUnsupported = errors.New("coppice: not supported")

	// ErrMasterGone is returned by a worker's calls once the channel to the
	// master is lost.
	ErrMasterGone = child.ErrMasterGone

	// ErrStopping is wrapped by the error of a reload or a scaling that the end of the tree or of
	// the pool interrupted.
	ErrStopping = errors.New("coppice: it is ending")

	// ErrNoPool is wrapped by the error of Scale for a pool that does not run.
	ErrNoPool = errors.New("coppice: no such pool runs")

	// ErrNoChild is wrapped by the error of a call about a process of the tree when no process has
	// that ID.
	ErrNoChild = errors.New("coppice: no such child")

	// ErrNoListener is wrapped by the error of a call about a listener when no listener has that
	// name.
	ErrNoListener = errors.New("coppice: no such listener")

	// ErrNotReady is wrapped by the start error of a worker that did not become
	// ready in time.
	ErrNotReady = errors.New("coppice: not ready in time")
)

// An InvalidError names one field of a spec that cannot be used. Start returns all such errors at
// once, joined.
type InvalidError struct {
	Path  string // of the child in the tree; "" = the Config itself
	Field string
	Value any
	Why   string
}

// Error returns the place, the field and the reason in one line.
func (e *InvalidError) Error() string {
	at := "config"
	if e.Path != "" {
		at = fmt.Sprintf("child %q", e.Path)
	}
	return fmt.Sprintf("coppice: %s: %s %v: %s", at, e.Field, e.Value, e.Why)
}

// ReloadError is the error of a reload that failed. It names the worker that was the first to fail
// and has the worker's last lines. Err is the reason why the worker ended, or the context's error
// when the caller's ctx ended.
type ReloadError struct {
	Generation int      // of the reload
	Worker     string   // registered name; "" = no worker failed
	ID         int      // of the process
	Lines      []string // the worker's last lines, both streams, oldest first
	Err        error
}

// Error returns one line, and a further line for each of Lines.
func (e *ReloadError) Error() string {
	s := fmt.Sprintf("coppice: reload to generation %d failed: %v", e.Generation, e.Err)
	if len(e.Lines) > 0 {
		s += fmt.Sprintf("\n%s#%d| ", e.Worker, e.ID) + strings.Join(e.Lines, fmt.Sprintf("\n%s#%d| ", e.Worker, e.ID))
	}
	return s
}

// Unwrap returns Err.
func (e *ReloadError) Unwrap() error { return e.Err }

// errForkTimeout is the cause of the end of a fork that took the whole StartTimeout.
var errForkTimeout = fmt.Errorf("%w: %w", ErrNotReady, supervisor.ErrStartTimeout)
