package coppice

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
)

// requestJudge judges the requests of a worker by their hard deadlines, from outside of it.
type requestJudge struct {
	*workerStop
	timeouts childproto.Timeouts
	table    *inflight.Table // of the worker; nil = none
	log      *slog.Logger

	// replace has the worker replaced for these requests.
	replace func(why error, served []inflight.Served)
}

// run judges until the worker ends, is asked to stop, or is to be replaced. The caller waits for
// it.
func (j requestJudge) run() {
	if j.timeouts.Hard == 0 || j.table == nil {
		return
	}
	rule := inflight.NewDeadlines(j.timeouts.First(), j.timeouts.Grace())
	timer := time.NewTimer(0)
	defer timer.Stop()
	var all []inflight.Request
	for {
		select {
		case <-j.backend.exited():
			return
		case <-timer.C:
		}
		if j.isEnding() {
			return // the drain has a deadline of its own
		}
		all = j.table.InFlight(all[:0])
		over, next := rule.Step(j.table.Now(), all)
		if len(over) > 0 {
			if j.backend.traced() {
				rule.Renew(j.table.Now(), over)
			} else if j.found(over) {
				return
			}
		}
		timer.Reset(next - j.table.Now())
	}
}

// found handles requests that are over their deadlines, and reports whether any has not ended by
// now.
func (j requestJudge) found(over []inflight.Request) bool {
	var served []inflight.Served
	var oldest inflight.Request
	var why error
	for _, r := range over {
		s, ok := j.table.Served(r)
		if !ok {
			continue
		}
		served = append(served, s)
		age := time.Since(s.Began).Round(time.Millisecond)
		j.log.Error("a request is over its hard deadline: its worker is replaced", "key", s.Key, "age", age.String(), "trace", s.TraceID())
		if why == nil || r.Began < oldest.Began {
			oldest, why = r, lateError(s.Key, age)
		}
	}
	if why != nil {
		j.replace(why, served)
	}
	return why != nil
}

func lateError(key string, age time.Duration) error {
	return fmt.Errorf("%w: %q, for %v", ErrRequestTimeout, key, age)
}
