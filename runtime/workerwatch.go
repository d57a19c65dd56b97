package coppice

import (
	"fmt"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/liveness"
)

// abortGrace is how long a process that hangs has to print its goroutines.
const abortGrace = 5 * time.Second

// watch asks the worker, which is ready, for signs of life until it has ended or is asked to stop,
// and ends it if it hangs.
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
