package coppice

import (
	"fmt"
	"slices"
	"time"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/autoscale"
)

// autoscaler drives the rule of a pool's Autoscale, on one goroutine, and decides nothing.
type autoscaler struct {
	*poolDriver
	rule     *autoscale.State
	backlogs map[uint64]*autoscale.Backlog // by listener
	failed   bool                          // the last scaling
	full     bool                          // the log has that no more workers are allowed
	last     string                        // change, for the tree
}

// autoscale changes the size of the pool as it is needed, until the pool is gone.
func (c *poolDriver) autoscale() {
	a := c.pool.Autoscale
	s := &autoscaler{
		poolDriver: c, backlogs: map[uint64]*autoscale.Backlog{},
		rule: autoscale.New(autoscale.Config{Min: a.Min, Max: a.Max, Wait: a.Wait, Calm: a.Calm}),
	}
	tick := time.NewTicker(min(max(a.Wait/2, 50*time.Millisecond), time.Second))
	defer tick.Stop()
	for {
		select {
		case <-c.gone:
			return
		case <-tick.C:
			s.judge()
		}
	}
}

// judge takes one sample, and does what the rule says.
func (s *autoscaler) judge() {
	x := s.sample()
	select {
	case s.reload <- struct{}{}: // none begins until the scaling is over
		defer func() { <-s.reload }()
	default:
		x.Held = "a reload or an upgrade runs"
	}
	d := s.rule.Step(time.Since(s.began), x)
	if d.Full && !s.full {
		s.log.Warn("autoscale: connections wait, and the pool has as many workers as it may", "pool", s.path, "size", x.Size, "waited", x.Oldest.String())
	}
	s.full = d.Full
	if d.Size != 0 {
		s.last = fmt.Sprintf("; %s: %d to %d, %s", time.Now().Format(time.TimeOnly), x.Size, d.Size, d.Why)
		to := func(now int) int {
			if now == x.Size {
				return d.Size
			}
			return now // an operator was faster
		}
		s.failed = s.scale(s.alive, to, d.Why) != nil && d.Size > x.Size // the event tells the error
	}
	says := fmt.Sprintf("%d to %d workers by need: %s%s", s.pool.Autoscale.Min, s.pool.Autoscale.Max, d.Why, s.last)
	s.autoscaled.Store(&says)
}

// sample measures the pool.
func (s *autoscaler) sample() autoscale.Sample {
	x := autoscale.Sample{Size: s.size(), Failed: s.failed}
	s.failed = false
	stats, err := s.children.sockets.Stats(s.alive)
	joined := 0
	for _, l := range stats {
		var ages []time.Duration
		open := 0
		for _, w := range l.Workers {
			if w.Worker.Pool == s.path && w.Joined {
				ages = append(ages, w.QueueAge)
				open += w.Counts.Open() + w.Counts.Offered
			}
		}
		if len(ages) == 0 {
			continue
		}
		joined += len(ages)
		slices.Sort(ages)
		x.Oldest = max(x.Oldest, l.QueueAge, ages[(len(ages)-1)/2], s.backlog(l))
		if l.PerWorker > 0 {
			x.Need = max(x.Need, float64(open)/float64(l.PerWorker))
		}
	}
	switch {
	case err != nil:
		x.Held = "the listener process does not say what waits: " + err.Error()
	case s.ending():
		x.Held = "the tree ends"
	case joined == 0:
		x.Held = "no worker takes connections of a listener that counts them"
	}
	return x
}

// backlog returns how long the first connection of a listener's backlog has waited, at least.
func (s *autoscaler) backlog(l netactor.ListenerStats) time.Duration {
	b := s.backlogs[l.Number]
	if b == nil {
		b = &autoscale.Backlog{}
		s.backlogs[l.Number] = b
	}
	return b.Age(time.Since(s.began), l.Counts.Accepted, l.Backlog)
}
