package main

import (
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

// hint says what to do after an answer with an HTTP status.
func hint(status int) string {
	switch status {
	case 400:
		return "see coppicectl COMMAND --help"
	case 403:
		return "the endpoint may be read-only (Config.Control.ReadOnly), or the caller is not root or the tree's user from outside of the tree; see docs/control.md"
	case 404:
		return "coppicectl ps lists the processes, coppicectl tree shows the rest"
	case 409:
		return "coppicectl why NAME tells more; so do coppicectl events and the program's log"
	case 501:
		return "the program or this system does not have that; coppicectl bundle saves what there is"
	case 503:
		return "try again in a moment; coppicectl ps shows whether the process is up"
	case 504:
		return "coppicectl tree and events show what it waits for; what changes the tree has more time with --timeout"
	}
	return "look at coppicectl events, and at the program's log"
}
