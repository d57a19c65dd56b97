package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
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

// The pause between two tries to take something that is short.
const (
	firstShortRetry = 20 * time.Millisecond
	maxShortRetry   = time.Second
)

// retry calls try, with growing pauses, until it returns no shortage or ctx ends, and returns its
// last error. The log has one line when a shortage begins and one line when it is over, however
// many starts wait for it.
func (s *shortages) retry(ctx context.Context, name string, try func() error) error {
	err := try()
	if !isShort(err) {
		return err
	}
	s.begin(name, err)
	defer s.end()
	for pause := firstShortRetry; isShort(err); pause = min(2*pause, maxShortRetry) {
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
		s.tried()
		err = try()
	}
	return err
}

// shortages are the starts that wait for what is short.
type shortages struct {
	log *slog.Logger

	mu       sync.Mutex
	waiting  int
	starts   int
	attempts int
	since    time.Time
}

func (s *shortages) begin(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	s.starts++
	s.attempts++
	if s.waiting == 1 {
		s.since = time.Now()
		s.log.Error("the master is short of what a start takes: starts are tried again, and count in no budget", "name", name, "err", err)
	}
}

func (s *shortages) tried() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts++
}

func (s *shortages) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting--; s.waiting == 0 {
		s.log.Warn("the shortage is over, or no start waits for its end", "starts", s.starts, "attempts", s.attempts, "took", time.Since(s.since).Round(time.Millisecond))
		s.starts, s.attempts = 0, 0
	}
}
