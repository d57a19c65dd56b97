package coppice

import (
	"sync"
	"time"
)

// stopPlan shares out the time that the tree has for its end. Children stop one after the other,
// each within a time of its own. If these times add up to more than there is, each child gets the
// same part of its own, so that the last one too is asked before it is killed. Safe for concurrent
// use.
type stopPlan struct {
	mu       sync.Mutex
	deadline time.Time                // of the tree's end; zero = none
	times    map[string]time.Duration // how long each pool and program that runs may take; by path
}

// add notes that a child runs that may take d to stop, and returns what is to be called when it has
// ended.
func (p *stopPlan) add(path string, d time.Duration) (ended func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.times == nil {
		p.times = map[string]time.Duration{}
	}
	p.times[path] = d
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.times, path)
	}
}

// begin sets the deadline of the tree's end, and returns what its children may take in all.
func (p *stopPlan) begin(deadline time.Time) (sum time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deadline.IsZero() || deadline.Before(p.deadline) {
		p.deadline = deadline
	}
	return p.sumLocked()
}

func (p *stopPlan) sumLocked() (sum time.Duration) {
	for _, d := range p.times {
		sum += d
	}
	return sum
}

// share returns the part of d, a child's own time, that the child has for its stop, which begins
// now. A twentieth of what is left is kept for the kills.
func (p *stopPlan) share(now time.Time, d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := p.sumLocked()
	if p.deadline.IsZero() || sum == 0 {
		return d
	}
	part := p.deadline.Sub(now).Seconds() * 0.95 / sum.Seconds()
	return time.Duration(float64(d) * max(0, min(part, 1)))
}

// drainOf returns how much of the time for a stop is for the work under way. The rest is for what
// follows SIGTERM.
func drainOf(d time.Duration) time.Duration { return d * 9 / 10 }
