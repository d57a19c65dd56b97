package coppice

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/liveness"
)

// watch asks the worker that self describes, which is ready, for signs of life until it has ended
// or is asked to stop, and ends it if it hangs. While judging is set it asks for figures too.
func (w *workerStop) watch(h Liveness, answers *liveness.Answers, judging *atomic.Bool, log *slog.Logger, self childproto.Hello) {
	if h.Every < 0 {
		return
	}
	name, id := self.Name, self.ID
	silence := liveness.Watch(liveness.Config{Every: h.Every, Timeout: h.Timeout}, liveness.Subject{
		Answers: answers, Ended: w.backend.exited(), Stopped: w.askedStop.Load,
		Ask: func(q childproto.HeartbeatFrame) error {
			q.Ask = judging.Load()
			return w.conn.TrySend(childproto.NewFrame(childproto.FrameHeartbeat, q))
		},
		Waited: w.backend.waited, Traced: w.backend.traced,
		Late: func(silence time.Duration) {
			log.Warn("late with its heartbeat", "name", name, "id", id, "silent", silence.Round(10*time.Millisecond), "says", answers.Complaint())
		},
		Recovered: func() { log.Info("its heartbeat is back", "name", name, "id", id) },
	})
	if silence == 0 {
		return
	}
	silence = silence.Round(10 * time.Millisecond)
	why := fmt.Errorf("%w: no heartbeat for %v", ErrHung, silence)
	if says := answers.Complaint(); says != "" {
		why = fmt.Errorf("%w: unwell for %v: %s", ErrHung, silence, says)
	}
	log.Error("hung: aborting it", "name", name, "id", id, "pid", w.backend.pid(), "why", why)
	w.abort(why, h.Abort)
}
