package coppice

import (
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// A worker is asked to stop by a frame, warned by SIGTERM at the end of its drain, and killed when
// its time is over.

// cutDrainTimeout is how long a worker whose drain is cut short has to end.
const cutDrainTimeout = time.Second

// Stop asks the worker to drain and end. No worker replaces it, so connections without a request
// are closed soon: their clients would find no worker to ask again.
func (w *poolWorker) Stop() { w.requestStop(w.hello.Drain / childproto.IdleShare) }

// retire asks the worker to drain and end when another has taken its place.
func (w *poolWorker) retire() { w.requestStop(w.hello.Drain) }

// requestStop asks the worker to drain and end, and to close connections without a request after
// idle. A further call can only hurry it.
func (w *poolWorker) requestStop(idle time.Duration) {
	err := w.conn.TrySend(childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{Drain: w.hello.Drain, Idle: idle}))
	if w.askedStop.Swap(true) {
		return
	}
	if err != nil {
		w.backend.terminate() // a frame cannot reach it
		return
	}
	w.backend.asked("asked by frame")
	w.unlessEnded(w.hello.Drain, w.endDrain)
}

// endDrain ends the worker's drain: its requests under way are cut. The frame tells the worker that
// the signal is the master's, because a signal alone counts as one from outside. The signal also
// reaches the rest of its group.
func (w *poolWorker) endDrain() {
	_ = w.conn.TrySend(childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{})) // a worker that does not read it is killed
	w.backend.terminate()
}

// cutDrain ends the worker's drain now.
func (w *poolWorker) cutDrain() {
	w.endDrain()
	w.unlessEnded(cutDrainTimeout, w.Kill)
}

// Kill ends the worker, whether or not it was asked to stop before.
func (w *poolWorker) Kill() {
	if w.askedStop.Load() {
		w.killFor(KilledStop)
	} else {
		w.killFor(KilledBrutal)
	}
}

// killFor ends the worker. The first reason counts.
func (w *poolWorker) killFor(why KillReason) {
	w.killed.CompareAndSwap(nil, &why)
	w.backend.kill()
}
