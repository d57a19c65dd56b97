package netactor

import (
	"time"

	"github.com/coppice-go/coppice/tracing"
)

// HandOverTimes counts hand-overs by how long they took, from accept in the listener process until
// the worker's application had the connection. Its buckets are those of [tracing.Bounds], as in the
// metric coppice.handoff.duration; the last bucket has no bound.
type HandOverTimes [12]uint64

// Count returns the number of hand-overs.
func (h HandOverTimes) Count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile returns the upper bound of the bucket that holds the quantile q, from 0 to 1: 0.5 is the
// median. It returns 0 if there are no hand-overs, and twice the last bound for the last bucket.
func (h HandOverTimes) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	rank := uint64(q * float64(n-1))
	for i, c := range h {
		if rank < c {
			if i == len(tracing.Bounds) {
				break
			}
			return secondsOf(tracing.Bounds[i])
		}
		rank -= c
	}
	return 2 * secondsOf(tracing.Bounds[len(tracing.Bounds)-1])
}

func secondsOf(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
