package tracing

import (
	"maps"
	"time"
)

// HandoffMeter counts the hand-offs to one pool. nil is off. Its methods may be
// called by any goroutine; those that are called for each connection allocate
// nothing unless the connection is sampled.
type HandoffMeter struct {
	meter    *Meter
	pool     string
	duration *Histogram
	queue    *Histogram
	claimed  *Counter
}

// Handoffs returns the meter of the hand-offs to a pool, the same one each time;
// nil when metrics are off.
func (t *Tracer) Handoffs(pool string) *HandoffMeter {
	if t == nil || t.meter == nil {
		return nil
	}
	if known := t.pools.Load(); known != nil {
		if h := (*known)[pool]; h != nil {
			return h
		}
	}
	p := KeyPool.String(pool)
	h := &HandoffMeter{
		meter: t.meter, pool: pool,
		duration: t.meter.Histogram(HandoffDuration, p),
		queue:    t.meter.Histogram(QueueDuration, p),
		claimed:  t.meter.Counter(HandoffCount, p, KeyHandoffOutcome.String(string(Claimed))),
	}
	for {
		old := t.pools.Load()
		grown := map[string]*HandoffMeter{}
		if old != nil {
			grown = maps.Clone(*old)
		}
		grown[pool] = h // two at a time count in the same series
		if t.pools.CompareAndSwap(old, &grown) {
			return h
		}
	}
}

// Claimed counts a hand-off that was claimed: total is the time since accept, queued the part of it
// in which no worker had it. s is the connection's span, for the exemplar.
func (h *HandoffMeter) Claimed(total, queued time.Duration, s Span) {
	if h == nil {
		return
	}
	h.claimed.Add(1)
	h.duration.Record(total, s)
	h.queue.Record(queued, s)
}

// Failed counts a hand-off that was not claimed.
func (h *HandoffMeter) Failed(o HandoffOutcome, reason string) {
	if h == nil {
		return
	}
	h.meter.Counter(HandoffCount, KeyPool.String(h.pool),
		KeyHandoffOutcome.String(string(o)), KeyHandoffReason.String(reason)).Add(1)
}
