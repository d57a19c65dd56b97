package netactor

import "time"

// Histogram counts hand-overs by how long they took, from accept in the listener process
// until the worker's application had the connection. Its buckets are fixed: see
// [HistogramBounds].
type Histogram [len(bounds) + 1]uint64

var bounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	50 * time.Millisecond, 200 * time.Millisecond, time.Second,
}

// HistogramBounds returns the upper bounds of the buckets of a [Histogram]; the
// last one has none.
func HistogramBounds() []time.Duration {
	b := bounds
	return b[:]
}

// bucket returns the bucket that d belongs to.
func bucket(d time.Duration) int {
	for i, b := range bounds {
		if d <= b {
			return i
		}
	}
	return len(bounds)
}

// Count is the number of hand-overs.
func (h Histogram) Count() (n uint64) {
	for _, c := range h {
		n += c
	}
	return n
}

// Quantile returns the upper bound of the bucket that holds the quantile q, from 0 to 1:
// 0.5 is the median. It is 0 when there is nothing, and twice the last
// bound in the last bucket.
func (h Histogram) Quantile(q float64) time.Duration {
	n := h.Count()
	if n == 0 {
		return 0
	}
	rank := uint64(q * float64(n-1))
	for i, c := range h {
		if rank < c {
			if i == len(bounds) {
				break
			}
			return bounds[i]
		}
		rank -= c
	}
	return 2 * bounds[len(bounds)-1]
}

func (h *Histogram) add(o Histogram) {
	for i, c := range o {
		h[i] += c
	}
}
