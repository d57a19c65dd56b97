package coppice

import (
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// A worker is asked to stop by a frame, warned by SIGTERM at the end of its drain, and killed when
// its time is over.

// cutDrainTimeout is how long a worker whose drain is cut short has to end.
const cutDrainTimeout = time.Second

// Stop asks the worker to drain and end. Nothing takes its place, so connections without a request
// are closed soon: their clients would find nothing to ask again.
func (w *poolWorker) Stop() { w.requestStop(w.hello.Drain / childproto.IdleShare) }

// retire asks the worker to drain and end, as one whose place another has taken.
func (w *poolWorker) retire() { w.requestStop(w.hello.Drain) }

// requestStop asks the worker to drain and end, and to close connections without a request after
// idle. Asked again it can only be hurried.
func (w *poolWorker) requestStop(idle time.Duration) {
	err := w.conn.TrySend(childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{Drain: w.hello.Drain, Idle: idle}))
	if w.askedStop.Swap(true) {
		return
	}
	if err != nil {
		w.backend.terminate() // it cannot be asked by frame
		return
	}
	w.backend.asked("asked by frame")
	w.unlessEnded(w.hello.Drain, w.endDrain)
}

// endDrain ends the worker's drain: what is under way is cut. The frame says so to the worker, for
// which a signal alone is one from outside, and the signal to the rest of its group.
func (w *poolWorker) endDrain() {
	_ = w.conn.TrySend(childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{})) // a worker that is deaf to it is killed
	w.backend.terminate()
}

// cutDrain ends the worker's drain now.
func (w *poolWorker) cutDrain() {
	w.endDrain()
	w.unlessEnded(cutDrainTimeout, w.Kill)
}

// Kill ends the worker: after it was asked in vain, or without.
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
