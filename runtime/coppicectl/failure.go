package main

import (
	"cmp"
	"errors"
	"fmt"
)

// The exit codes.
const (
	codeFailed = 1 // it was tried, and failed
	codeUsage  = 2 // the command line cannot be used, or does not say which tree
	codeNoTree = 3 // no such tree runs
	codeLost   = 4 // the tree ended meanwhile, or does not answer
)

// failure is an error with its exit code, and what to do next.
type failure struct {
	code int
	err  error
	next string
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

func fail(code int, next, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...), next}
}

// failureOf returns the failure that an error is or wraps. Cobra's own errors are of the usage.
func failureOf(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return &failure{codeUsage, err, "coppicectl help shows the commands, and coppicectl COMMAND --help what one takes"}
}

// codeOf returns the exit code for an answer with an HTTP status.
func codeOf(status int) int {
	if status == 400 {
		return codeUsage
	}
	return codeFailed
}

// hints say what to do after an answer with an HTTP status.
var hints = map[int]string{
	400: "see coppicectl COMMAND --help",
	403: "the endpoint may be read-only (Config.Control.ReadOnly), or the caller is not root or the tree's user from outside of the tree; see docs/control.md",
	404: "coppicectl ps lists the processes, coppicectl tree shows the rest",
	409: "coppicectl why NAME tells more; so do coppicectl events and the program's log",
	501: "the program or this system does not have that; coppicectl bundle saves what there is",
	503: "try again in a moment; coppicectl ps shows whether the process is up",
	504: "coppicectl tree and events show what it waits for; what changes the tree has more time with --timeout",
}

// hint returns what to do after an answer with an HTTP status.
func hint(status int) string {
	return cmp.Or(hints[status], "look at coppicectl events, and at the program's log")
}
