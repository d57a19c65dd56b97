package jobs

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/runtime/jobs/internal/rules"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// end is how a call has ended, in metrics and in Status.Ends.
type end uint8

const (
	endAnswer end = iota
	endError
	endPanic
	endRefused
	endTooLarge
	endDied
	endDeadline
	endCanceled
	endQuarantined
	endFull
	endGone
	ends // how many there are
)

func (e end) String() string {
	return [...]string{"answer", "error", "panic", "refused", "too large", "died", "deadline", "cancelled", "quarantined", "full", "gone"}[e]
}

// end returns how the call has ended; false: it has not.
func (o *outcome) end() (end, bool) {
	switch o.What {
	case rules.Wait, rules.Place:
		return 0, false
	case rules.Full:
		return endFull, true
	case rules.Quarantined:
		return endQuarantined, true
	case rules.Expired, rules.Killed:
		return endDeadline, true
	case rules.Died:
		return endDied, true
	case rules.Dropped:
		return endCanceled, true
	case rules.Ended:
	}
	switch o.Answer {
	case isAnswer:
		return endAnswer, true
	case isPanic:
		return endPanic, true
	case isRefusal:
		return endRefused, true
	case isTooLarge, isTooLargeAnswer:
		return endTooLarge, true
	case isError:
	}
	return endError, true // also of a worker that says what no worker should
}

// figures count what becomes of the calls of a queue. They are the queue's, but for the meter,
// which counts on when a queue is started again.
type figures struct {
	meter       *tracing.Meter // nil is off
	pool        attribute.KeyValue
	ended       [ends]uint64
	calls       [ends]*tracing.Counter
	runs, waits *tracing.Histogram
	retries     *tracing.Counter
	retried     uint64 // reruns that are in retries
	unwatch     func()
}

// Measure is for telemetry.Measured.
func (q *queueActor) Measure(m *tracing.Meter) { q.meter = m }

var _ telemetry.Measured = (*queueActor)(nil)

// deathKinds are how processes and goroutines die.
var deathKinds = []supervisor.ReasonKind{supervisor.Killed, supervisor.Panic, supervisor.Error, supervisor.Exited, supervisor.Signaled}

// beginFigures makes what is counted exist.
func (q *queueActor) beginFigures(pool string) {
	q.pool = tracing.KeyPool.String(pool)
	for e := range ends {
		q.figures.calls[e] = q.meter.Counter(tracing.JobCalls, q.pool, tracing.KeyJobOutcome.String(e.String()))
	}
	for _, k := range deathKinds {
		q.deaths(k, 0)
	}
	q.runs, q.waits = q.meter.Histogram(tracing.JobRuns, q.pool), q.meter.Histogram(tracing.JobWaits, q.pool)
	q.retries = q.meter.Counter(tracing.JobRetries, q.pool)
	q.unwatch = q.meter.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		waiting, running, rerun, oldest, quarantined := q.levels()
		emit(tracing.JobsWaiting, int64(waiting+rerun), q.pool)
		emit(tracing.JobsRunning, int64(running), q.pool)
		emit(tracing.JobsOldest, int64(oldest), q.pool)
		emit(tracing.JobsQuarantined, int64(quarantined), q.pool)
	})
}

// endFigures is for a queue that ends, and all its calls with it.
func (q *queueActor) endFigures() {
	for range q.calls {
		q.figures.calls[endGone].Add(1)
	}
	if q.unwatch != nil {
		q.unwatch()
	}
}

// levels may be called by any goroutine.
func (q *queueActor) levels() (waiting, running, rerun int, oldest time.Duration, quarantined int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Since(q.began)
	waiting, running, rerun, oldest = q.rules.Len(now)
	if table := q.rules.Quarantine(); table != nil {
		quarantined = table.Len(now)
	}
	return waiting, running, rerun, oldest, quarantined
}

func (q *queueActor) deaths(k supervisor.ReasonKind, n int64) {
	q.meter.Counter(tracing.JobDeaths, q.pool, tracing.KeyReason.String(k.String())).Add(n)
}

// count counts a call that has ended with o.
func (q *queueActor) count(o *outcome) *outcome {
	if e, ok := o.end(); ok {
		q.ended[e]++
		q.figures.calls[e].Add(1)
	}
	return o
}

// begins notes that a call was handed to a worker.
func (c *pendingCall) begins(q *queueActor, e rules.Effect) {
	now := time.Now()
	if e.Run == 1 {
		q.waits.Record(now.Sub(c.came), tracing.Span{})
	}
	c.run, c.on, c.handed, c.said = e.Run, e.Worker, now, body{}
}

// over notes that the call does not run any more.
func (c *pendingCall) over(q *queueActor) {
	q.runs.Record(time.Since(c.handed), tracing.Span{})
	c.handed = time.Time{}
}

// before looks at an event that the rules are about to get. It returns the calls that a worker had,
// and that it has lost.
func (q *queueActor) before(ev rules.Event) (lost []*pendingCall) {
	switch ev.Kind {
	case rules.Answer, rules.Undelivered:
		switch c := q.calls[ev.ID]; {
		case c == nil || c.handed.IsZero() || c.run != ev.Run || c.on != ev.Worker:
		case ev.Kind == rules.Answer:
			c.over(q)
		default:
			c.handed = time.Time{}
			lost = append(lost, c)
		}
	case rules.Death:
		for _, c := range q.calls {
			if !c.handed.IsZero() && c.on == ev.Worker {
				c.over(q)
				lost = append(lost, c)
			}
		}
		if lost != nil {
			q.deaths(q.death.Reason.Kind, 1)
		}
	default:
	}
	return lost
}
