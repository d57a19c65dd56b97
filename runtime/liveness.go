package coppice

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Defaults of Liveness.
const (
	defaultHeartbeatEvery   = time.Second
	defaultHeartbeatTimeout = 10 * time.Second
	defaultAbort            = 5 * time.Second
)

// ErrHung is the cause of the exit reason of a worker that was ended because for too long it did
// not answer its heartbeat, or reported that it was unwell.
var ErrHung = errors.New("coppice: hung")

// Liveness is how the master finds out whether a worker still does its work, from the moment it is
// ready until it is asked to stop. At each beat the master asks over the channel. The worker
// answers from the goroutine that reads all other messages of the master, which proves that the
// process gets CPU and reads. Path or Check proves that requests are answered.
//
// A worker that is silent for Timeout hangs: its process gets SIGABRT, so that it prints the stacks
// of its goroutines, and SIGKILL later (see Abort). Its exit reason is an error that wraps
// [ErrHung].
//
// Silence is counted in beats that were missed while the master itself was running. So no worker is
// killed when the whole tree was stopped, the machine slept, or a clock jumped. Time in which a
// worker waited for a CPU counts a quarter. A worker that a debugger holds is left alone.
type Liveness struct {
	Every   time.Duration // between two beats; zero = 1 s, None = no heartbeat
	Timeout time.Duration // at least Every; zero = 10 s

	// Abort is how long a process that hangs may take to print its goroutines and end, from SIGABRT
	// to SIGKILL; zero = 5 s. While the kernel writes its core dump (GOTRACEBACK=crash, and
	// RLIMIT_CORE) it is not killed for 5 minutes.
	Abort time.Duration

	// Path, if set, is requested at each beat from the handler of every http.Server that the worker
	// serves (Worker.Serve), by GET and without a connection, for example "/healthz". A status of
	// 400 or more, or no answer, is a missed beat.
	Path string

	// Check, if set, is called at each beat: an error is a missed beat, and so is no answer. It
	// runs in the worker, on a separate goroutine, one call at a time; ctx ends after Timeout. A
	// panic in it is an error.
	Check func(ctx context.Context, w *Worker) error
}

func (h Liveness) defaults() Liveness {
	if h.Every == 0 {
		h.Every = defaultHeartbeatEvery
	}
	if h.Timeout == 0 {
		h.Timeout = max(defaultHeartbeatTimeout, h.Every)
	}
	if h.Abort == 0 {
		h.Abort = defaultAbort
	}
	return h
}

func (h Liveness) validate(bad reportInvalid, path string) {
	if h.Every < 0 && h.Every != None {
		bad(path, "Liveness.Every", h.Every, "is negative")
	}
	if h.Timeout < 0 {
		bad(path, "Liveness.Timeout", h.Timeout, "is negative")
	}
	notNegative(bad, path, "Liveness.Abort", h.Abort)
	if h.Path != "" && h.Path[0] != '/' {
		bad(path, "Liveness.Path", h.Path, "does not begin with /")
	}
	if h.Every > 0 && h.Timeout > 0 && h.Timeout < h.Every {
		bad(path, "Liveness.Timeout", h.Timeout, fmt.Sprintf("is shorter than Liveness.Every, %v", h.Every))
	}
}
