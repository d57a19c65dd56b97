package netactor

import (
	"log/slog"
	"time"
)

// tellTroubleEvery bounds the lines about one thing that fails and works by turns.
const tellTroubleEvery = time.Minute

// trouble is that something cannot be done, for as long as it lasts: told in one line when
// it begins, and in one when it is over. Its owner is one goroutine; the zero value is none.
type trouble struct {
	since    time.Time // zero: there is none
	failures int
	told     time.Time // when the latest one was told that was
	telling  bool      // this one was
}

// begin takes note of a failure.
func (t *trouble) begin(log *slog.Logger, msg string, args ...any) {
	t.failures++
	if !t.since.IsZero() {
		return
	}
	t.since = time.Now()
	if t.telling = t.told.IsZero() || time.Since(t.told) >= tellTroubleEvery; t.telling {
		t.told = t.since
		log.Warn(msg, args...)
	}
}

// over takes note of a success.
func (t *trouble) over(log *slog.Logger, msg string, args ...any) {
	if t.since.IsZero() {
		return
	}
	if t.telling {
		log.Info(msg, append(args, "failures", t.failures, "after", time.Since(t.since).Round(time.Millisecond))...)
	}
	t.since, t.failures, t.telling = time.Time{}, 0, false
}
