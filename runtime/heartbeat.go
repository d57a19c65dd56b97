package coppice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/liveness"
)

// Defaults of Liveness.
const (
	defaultHeartbeatEvery   = time.Second
	defaultHeartbeatTimeout = 10 * time.Second
)

// abortGrace is how long a process that hangs has to print its goroutines.
const abortGrace = 5 * time.Second

// ErrHung is the cause of the exit reason of a worker that was ended because it
// did not answer its heartbeat, or said that it was unwell, for too long.
var ErrHung = errors.New("coppice: hung")

// Liveness is how the master finds out, from the moment a worker is ready until it is asked to
// stop, whether it still does its work. The master asks over the channel, a beat at a time; the
// worker answers from the goroutine that hears everything else the master says, which proves that
// the process gets CPU and reads; that requests are answered is proved by Path or Check.
//
// A worker that is silent for Timeout hangs: its process gets SIGABRT, so that it
// prints the stacks of its goroutines, and SIGKILL 5 s later. Its exit reason is
// an error that wraps [ErrHung].
//
// Silence is counted in beats that were missed while the master itself was
// running: a tree that was stopped as a whole, a machine that slept, or a clock
// that jumped kills no worker. Time in which a worker waited for a CPU counts a
// quarter. A worker that a debugger holds is left alone.
type Liveness struct {
	Every   time.Duration // between two beats; zero = 1 s, None = no heartbeat
	Timeout time.Duration // at least Every; zero = 10 s

	// Path, if set, is asked for at each beat of the handler of every http.Server
	// that the worker serves (Worker.Serve), by GET and without a connection:
	// "/healthz". A status of 400 or more, or no answer, is a beat missed.
	Path string

	// Check, if set, is asked at each beat: an error is a beat missed, and so is no answer. It
	// runs in the worker, on a goroutine of its own, one at a time; ctx ends after Timeout. A
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
	return h
}

func (h Liveness) validate(bad reportInvalid, path string) {
	if h.Every < 0 && h.Every != None {
		bad(path, "Liveness.Every", h.Every, "is negative")
	}
	if h.Timeout < 0 {
		bad(path, "Liveness.Timeout", h.Timeout, "is negative")
	}
	if h.Path != "" && h.Path[0] != '/' {
		bad(path, "Liveness.Path", h.Path, "does not begin with /")
	}
	if h.Every > 0 && h.Timeout > 0 && h.Timeout < h.Every {
		bad(path, "Liveness.Timeout", h.Timeout, fmt.Sprintf("is shorter than Liveness.Every, %v", h.Every))
	}
}

// watch asks the worker, which is ready, for signs of life until it has ended or is asked to stop, and
// ends it when it hangs.
func (w *poolWorker) watch() {
	h := w.driver.kind.heartbeat(w.driver.pool)
	if h.Every < 0 {
		return
	}
	silence := liveness.Watch(liveness.Config{Every: h.Every, Timeout: h.Timeout}, liveness.Subject{
		Answers: &w.heartbeats, Ended: w.backend.exited(), Stopped: w.askedStop.Load,
		Ask: func(q childproto.HeartbeatFrame) error {
			return w.conn.TrySend(childproto.NewFrame(childproto.FrameHeartbeat, q))
		},
		Waited: w.backend.waited, Traced: w.backend.traced,
		Late: func(silence time.Duration) {
			w.driver.log.Warn("late with its heartbeat", "name", w.name(), "id", w.hello.ID, "silent", silence, "says", w.heartbeats.Complaint())
		},
		Recovered: func() { w.driver.log.Info("its heartbeat is back", "name", w.name(), "id", w.hello.ID) },
	})
	if silence > 0 {
		w.endHung(silence)
	}
}

// endHung ends a child that has been silent for that long.
func (w *poolWorker) endHung(silence time.Duration) {
	why := fmt.Errorf("%w: no heartbeat for %v", ErrHung, silence)
	if says := w.heartbeats.Complaint(); says != "" {
		why = fmt.Errorf("%w: unwell for %v: %s", ErrHung, silence, says)
	}
	w.driver.log.Error("hung: aborting it", "name", w.name(), "id", w.hello.ID, "pid", w.backend.pid(), "why", why)
	w.hung.Store(&why)
	w.backend.abort()
	w.unlessEnded(abortGrace, func() { w.killFor(KilledHung) })
}
