package coppice

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/process"
)

// A shortage is the error of a start for which the master lacked something: a descriptor, a
// process, memory, room for a file. It is no fault of the child. It is made where the master takes
// the thing, so that the same errno in a worker's own error counts as the worker's.
type shortage struct{ err error }

func (s *shortage) Error() string { return s.err.Error() }

// Unwrap returns the kernel's error.
func (s *shortage) Unwrap() error { return s.err }

// asShortage makes a shortage of err, the error of taking something, if it is one.
func asShortage(err error) error {
	if _, option := errors.AsType[*process.OptionError](err); option {
		return err // an option that was asked for has failed
	}
	for _, e := range []syscall.Errno{
		syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ENOSPC, syscall.EDQUOT, syscall.ENOBUFS,
		syscall.ETXTBSY, // the program is being written
	} {
		if errors.Is(err, e) {
			if e == syscall.EMFILE && !strings.Contains(err.Error(), "RLIMIT_NOFILE") {
				err = fmt.Errorf("%w: RLIMIT_NOFILE (ulimit -n, LimitNOFILE= of systemd) is %d", err, fileLimit())
			}
			return &shortage{err}
		}
	}
	return err
}

// startError returns the error of taking something for the start of a child.
func startError(name string, err error) error {
	if err == nil {
		return nil
	}
	return asShortage(fmt.Errorf("coppice: start %s: %w", name, err))
}

func isShort(err error) bool {
	_, ok := errors.AsType[*shortage](err)
	return ok
}

// newShortages returns the retries of starts for which the master lacks something.
func newShortages(log *slog.Logger) *retries {
	return &retries{
		log: log, wait: isShort, max: time.Second,
		began: "the master is short of what a start takes: starts are tried again, and count in no budget",
		over:  "the shortage is over, or no start waits for its end",
	}
}
