package canary

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Latencies are counted in buckets, eight to each doubling, from 64 ns on: the last one begins at
// 64 s.
const (
	unit    = 64 * time.Nanosecond
	perStep = 8
	Buckets = 225
)

// Figures are what workers have served.
type Figures struct {
	Requests uint64 `json:",omitempty"`
	Failed   uint64 `json:",omitempty"` // of those: answered with 5xx, or the handler panicked

	Good uint64 `json:",omitempty"` // as Worker.Report reported
	Bad  uint64 `json:",omitempty"`

	Latency []uint64 `json:",omitempty"` // of the requests, by bucket; short of those at the end that are 0
}

// Add adds o, or takes it away if sign is -1. What would be below 0 is 0.
func (f *Figures) Add(o Figures, sign int) {
	add := func(to *uint64, n uint64) {
		if sign < 0 {
			*to -= min(*to, n)
		} else {
			*to += n
		}
	}
	add(&f.Requests, o.Requests)
	add(&f.Failed, o.Failed)
	add(&f.Good, o.Good)
	add(&f.Bad, o.Bad)
	o.Latency = o.Latency[:min(len(o.Latency), Buckets)] // a worker is not trusted
	if short := len(o.Latency) - len(f.Latency); short > 0 {
		f.Latency = append(f.Latency, make([]uint64, short)...)
	}
	for i, n := range o.Latency {
		add(&f.Latency[i], n)
	}
}

// Quantile returns the latency at a quantile, or where it could be with z standard deviations of
// luck.
func (f *Figures) Quantile(q, z float64) time.Duration {
	var n float64
	for _, c := range f.Latency {
		n += float64(c)
	}
	rank := min(max(n*q+z*math.Sqrt(n*q*(1-q)), 0), n)
	for i, c := range f.Latency {
		if c := float64(c); c > 0 && rank <= c {
			from, to := float64(bound(i)), float64(bound(i+1))
			return time.Duration(from + (to-from)*rank/c)
		} else {
			rank -= c
		}
	}
	return 0
}

// bucket returns the bucket of a latency.
func bucket(d time.Duration) int {
	n := uint64(max(d, 0) / unit)
	if n < perStep {
		return int(n)
	}
	step := bits.Len64(n) - bits.Len64(perStep)
	return min(perStep+step*perStep+int(n>>step)%perStep, Buckets-1)
}

// bound returns where bucket i begins.
func bound(i int) time.Duration {
	if i < perStep {
		return time.Duration(i) * unit
	}
	step, at := (i-perStep)/perStep, i%perStep
	return time.Duration(perStep+at) << step * unit
}

// Recorder counts in a worker, by any goroutine, without allocation, lock or system call. The zero
// value is ready for use; a nil *Recorder counts nothing.
type Recorder struct {
	failed, good, bad atomic.Uint64
	latency           [Buckets]atomic.Uint64
}

// Served counts a request.
func (c *Recorder) Served(took time.Duration, failed bool) {
	c.latency[bucket(took)].Add(1)
	if failed {
		c.failed.Add(1)
	}
}

// Report counts what the program itself found good and bad.
func (c *Recorder) Report(good, bad uint64) {
	if c != nil {
		c.good.Add(good)
		c.bad.Add(bad)
	}
}

// Figures returns what was counted.
func (c *Recorder) Figures() *Figures {
	if c == nil {
		return nil
	}
	f := &Figures{Failed: c.failed.Load(), Good: c.good.Load(), Bad: c.bad.Load()}
	for i := range c.latency {
		if n := c.latency[i].Load(); n > 0 {
			f.Requests += n
			f.Latency = append(append(f.Latency, make([]uint64, i-len(f.Latency))...), n)
		}
	}
	return f
}
