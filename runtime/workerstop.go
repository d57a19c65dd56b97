package coppice

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// cutDrainTimeout is how long a worker whose drain is cut short has to end.
const cutDrainTimeout = time.Second

// stacksGrace is how long a worker that is not ready in time has to print its stacks. It is longer
// than that takes, and a hanging start is not to take much longer than it may.
const stacksGrace = 2 * time.Second

// workerStop ends a running worker: by a frame that asks it to stop, by SIGTERM, which warns it at
// the end of its drain, and by a kill when its time is over. Safe for concurrent use.
type workerStop struct {
	drain time.Duration // what the worker gets for its drain

	// Set by poolWorker.run before launched.
	conn    *fdipc.Conn
	backend backend

	life    context.Context // ends when the worker has ended and is forgotten
	endLife context.CancelFunc

	askedStop atomic.Bool
	killed    atomic.Pointer[KillReason] // why the master killed it; nil = it did not
	hung      atomic.Pointer[error]      // why it is ended, if it hangs
	overdue   atomic.Pointer[error]      // why it is replaced, if a request in it is over its hard deadline
}

// done returns a channel that is closed when the worker has ended and is forgotten.
func (w *workerStop) done() <-chan struct{} { return w.life.Done() }

// finished reports whether the worker has ended and is forgotten.
func (w *workerStop) finished() bool { return w.life.Err() != nil }

// isEnding reports whether the master has asked the worker to end, or kills it.
func (w *workerStop) isEnding() bool {
	return w.askedStop.Load() || w.killed.Load() != nil || w.hung.Load() != nil
}

// unlessEnded calls f after d, if the worker lives until then.
func (w *workerStop) unlessEnded(d time.Duration, f func()) {
	timer := time.AfterFunc(d, f)
	context.AfterFunc(w.life, func() { timer.Stop() })
}

// Stop asks the worker to drain and end. No worker replaces it, so connections without a request
// are closed soon: their clients would find no worker to ask again.
func (w *workerStop) Stop() { w.stopWithin(w.drain) }

// stopWithin is Stop for a worker that has no more than drain for its drain.
func (w *workerStop) stopWithin(drain time.Duration) {
	w.requestStop(childproto.StopRequest{Drain: drain, Idle: drain / childproto.IdleShare})
}

// retire asks the worker to drain and end when another has taken its place.
func (w *workerStop) retire() {
	w.requestStop(childproto.StopRequest{Drain: w.drain, Idle: w.drain, Park: true})
}

// requestStop asks the worker to drain and end. A further call can only hurry it.
func (w *workerStop) requestStop(r childproto.StopRequest) {
	err := w.conn.TrySend(childproto.NewFrame(childproto.FrameStop, r))
	drain := r.Drain
	if w.askedStop.Swap(true) {
		if drain < w.drain {
			w.unlessEnded(drain, w.endDrain)
		}
		return
	}
	if err != nil {
		w.backend.terminate() // a frame cannot reach it
		return
	}
	w.backend.asked("asked by frame")
	w.unlessEnded(drain, w.endDrain)
}

// endDrain ends the worker's drain: its requests under way are cut. The frame tells the worker that
// the signal is the master's, because a signal alone counts as one from outside. The signal also
// reaches the rest of its group.
func (w *workerStop) endDrain() {
	_ = w.conn.TrySend(childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{})) // a worker that does not read it is killed
	w.backend.terminate()
}

// cutDrain ends the worker's drain now.
func (w *workerStop) cutDrain() {
	w.endDrain()
	w.unlessEnded(cutDrainTimeout, w.Kill)
}

// Kill ends the worker, whether or not it was asked to stop before.
func (w *workerStop) Kill() {
	switch {
	case !w.askedStop.Load():
		w.killFor(KilledBrutal)
	case w.overdue.Load() != nil:
		w.killFor(KilledRequest)
	default:
		w.killFor(KilledStop)
	}
}

// killFor ends the worker. The first reason counts.
func (w *workerStop) killFor(why KillReason) {
	w.killed.CompareAndSwap(nil, &why)
	w.backend.kill()
}

// abort ends a worker that hangs: it prints its goroutines, and is killed if it does not end within
// grace. abort waits for that.
func (w *workerStop) abort(why error, grace time.Duration) {
	w.hung.Store(&why)
	w.abortOrKill(grace, KilledHung)
}

// abortOrKill has a worker print its goroutines and end, and kills it if it does not.
func (w *workerStop) abortOrKill(grace time.Duration, why KillReason) {
	w.backend.abort()
	if !endsAfterAbort(w.backend.exited(), grace, func() bool { return dumpsCore(w.backend.pid()) }) {
		w.killFor(why)
	}
}

// endNotReady ends a worker that was not ready in time. It prints its stacks first.
func (w *workerStop) endNotReady() {
	why := KilledNotReady
	w.killed.CompareAndSwap(nil, &why)
	w.abortOrKill(stacksGrace, KilledNotReady)
}
