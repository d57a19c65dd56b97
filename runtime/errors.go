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

	// ErrMasterGone is returned by a worker's calls once the channel to the master is lost.
	ErrMasterGone = child.ErrMasterGone

	// ErrStopping is wrapped by the error of a reload or a scaling that the end of the tree or of
	// the pool interrupted.
	ErrStopping = errors.New("coppice: it is ending")

	// ErrNoPool is wrapped by the error of Scale for a pool that does not run.
	ErrNoPool = errors.New("coppice: no such pool runs")

	// ErrNoChild is wrapped by the error of a call about a process of the tree when no process has
	// that name or ID.
	ErrNoChild = errors.New("coppice: no such child")

	// ErrNoListener is wrapped by the error of a call about a listener when no listener has that
	// name.
	ErrNoListener = errors.New("coppice: no such listener")

	// ErrNotReady is wrapped by the start error of a worker that did not become ready in time.
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
	Identity          // of the worker, in the generation of the reload; without a Name no worker failed
	Lines    []string // the worker's last lines, both streams, oldest first
	Err      error
}

// Error returns one line, and a further line for each of the newest of Lines.
func (e *ReloadError) Error() string {
	return fmt.Sprintf("coppice: reload to generation %d failed: %s", e.Generation, withoutPrefix(e.Err)) +
		taggedLines(e.Tag(), newest(e.Lines))
}

// Unwrap returns Err.
func (e *ReloadError) Unwrap() error { return e.Err }

// errForkTimeout is the cause of the end of a fork that took the whole StartTimeout.
var errForkTimeout = fmt.Errorf("%w: %w", ErrNotReady, supervisor.ErrStartTimeout)

// What an error has of the lines that a child has printed last.
const (
	errorLines    = 10
	errorLineSize = 500 // bytes of each
)

// startFailure is the error of a child that did not become ready: one line that says what it did,
// or did not do, and below it the last lines that it has printed.
type startFailure struct {
	name  string   // registered name, or path
	what  string   // what it did instead of becoming ready
	tag   string   // of its lines
	lines []string // oldest first
	is    []error  // what errors.Is and errors.AsType find
}

// Error returns the line, and a further line for each of the lines.
func (e *startFailure) Error() string { return "coppice: " + e.line() + taggedLines(e.tag, e.lines) }

// line returns the error without its prefix and its lines.
func (e *startFailure) line() string { return e.name + " did not start: " + e.what }

// Unwrap returns what the error also is.
func (e *startFailure) Unwrap() []error { return e.is }

// taggedLines returns lines, each on a line below the text before it, and behind the
// tag that it has in the output.
func taggedLines(tag string, lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		if len(l) > errorLineSize {
			l = strings.ToValidUTF8(l[:errorLineSize], "") + "…"
		}
		b.WriteString("\n" + tag + "| " + l)
	}
	return b.String()
}

// newest returns the lines that an error shows.
func newest(lines []string) []string { return lines[max(0, len(lines)-errorLines):] }

// withoutPrefix returns the text of an error for the middle of another error's line.
func withoutPrefix(err error) string {
	if f, ok := err.(*startFailure); ok { //nolint:errorlint // err itself: what a wrapper says is not to be lost
		return f.line()
	}
	return strings.TrimPrefix(err.Error(), "coppice: ")
}

// textError is an error with a text of its own.
type textError struct {
	text string
	err  error
}

func (e *textError) Error() string { return e.text }

// Unwrap returns the error with its original text.
func (e *textError) Unwrap() error { return e.err }

// treeStartError returns the error of a start of the tree that failed with err. Its text is that of
// the child that failed, instead of the texts of all supervisors above it.
func treeStartError(err error) error {
	var deepest *supervisor.StartError
	for inner := err; ; inner = deepest.Err {
		next, ok := errors.AsType[*supervisor.StartError](inner)
		if !ok {
			break
		}
		deepest = next
	}
	if deepest == nil {
		return fmt.Errorf("coppice: %w", err)
	}
	text := deepest.Err.Error()
	if !strings.HasPrefix(text, "coppice: ") { // otherwise it names the child
		path := deepest.Path[strings.Index(deepest.Path, "/")+1:] // without the master
		text = fmt.Sprintf("coppice: %s did not start: %s", path, text)
	}
	return &textError{text, err}
}
