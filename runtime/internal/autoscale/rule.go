// Package autoscale decides how many workers a pool has, by how long connections wait for one: it
// grows fast, and shrinks slowly. It is a pure rule: [State.Step] takes what was measured and
// returns the size. It has no goroutine and no clock; package coppice drives it.
//
// # What holds
//
//   - The size changes only within Min and Max. One outside, which something else has set, stays.
//   - Nothing is changed while it is held, nor less than Calm after it was.
//   - A growth is judged by what is measured after its workers are up: while the queue becomes
//     shorter there is no other.
//   - A step down that had to be undone is tried again after twice the time, up to maxPatience
//     Calms: under a load that stays there are at most two steps down in that time.
package autoscale

import (
	"fmt"
	"time"
)

// Time is the time since the pool was started.
type Time = time.Duration

// Config is what the user has set. It is complete and immutable.
type Config struct {
	Min, Max int
	Wait     Time // a connection that waits so long makes the pool grow
	Calm     Time // so long none must wait before a worker goes
}

// Sample is what was measured, and how many workers there are to be now.
type Sample struct {
	Size   int
	Oldest Time    // how long the oldest connection has waited for a worker
	Need   float64 // how many workers are full with the open connections; 0 = they have no limit
	Held   string  // why nothing may be changed now; "" = it may
	Failed bool    // the growth decided last has failed
}

// Decision is how many workers there are to be, and why in one line. If nothing is to be changed,
// Size is 0.
type Decision struct {
	Size int
	Why  string
	Full bool // connections wait, and there are as many workers as there may be
}

// Limits of the rule.
const (
	maxPatience = 16    // Calms until a step down is tried again that had to be undone, at most
	undone      = 10    // Waits that a size is given which has sufficed before
	room        = 0.75  // of the workers that would be left, how many may be full
	shorter     = 0.125 // of a Wait: by how much the oldest one's wait falls in it if the queue becomes shorter
)

// Bounds of the wait after a growth that has failed, which doubles.
const (
	retry    = time.Second
	maxRetry = time.Minute
)

// State is what the rule remembers.
type State struct {
	cfg      Config
	size     int
	calm     Time // since when one worker less would do
	low      int  // the size that a step down had to be undone from; 0 = none
	patience Time // how long it is to be calm before a step to low
	shrunk   Time // when the last change was, if it was a step down; else 0
	grown    bool // the last sample led to a growth
	oldest   Time // as the last growth was up, or when it was judged last
	judge    Time // when it is to be judged
	failures int  // of growths, in a row
}

// New returns the rule of a pool that begins.
func New(cfg Config) *State { return &State{cfg: cfg, patience: cfg.Calm} }

// Step takes a sample and returns what is to be done.
func (s *State) Step(now Time, x Sample) Decision {
	if x.Size != s.size { // something else has set it, or not every worker came up
		s.size, s.calm, s.low, s.shrunk = x.Size, now, 0, 0
	}
	waits := x.Oldest >= s.cfg.Wait
	switch {
	case x.Failed:
		s.judge, s.oldest = now+min(retry<<min(s.failures, 10), maxRetry), 0
		s.failures++
	case s.grown:
		s.judge, s.oldest, s.failures = now+s.cfg.Wait, x.Oldest, 0
		if x.Size == s.low+1 { // what sufficed before
			s.judge = now + undone*s.cfg.Wait
		}
	case waits && now >= s.judge && x.Oldest <= s.oldest-Time(shorter*float64(s.cfg.Wait)):
		s.judge, s.oldest = now+s.cfg.Wait, x.Oldest
	}
	s.grown = false
	if waits || x.Held != "" || x.Oldest > s.cfg.Wait/2 || x.Need > room*float64(x.Size-1) {
		s.calm = now
	}
	calm := s.cfg.Calm
	if x.Size-1 <= s.low {
		calm = s.patience
	}
	switch {
	case x.Held != "":
		return Decision{Why: x.Held}
	case x.Size < s.cfg.Min || x.Size > s.cfg.Max:
		return Decision{Why: fmt.Sprintf("%d is outside, and stays as it was set", x.Size)}
	case waits && x.Size == s.cfg.Max:
		return Decision{Why: "no more are allowed: " + waited(x.Oldest), Full: true}
	case waits && now < s.judge:
		return Decision{Why: "the last growth is given time: " + waited(x.Oldest)}
	case waits:
		return s.grow(now, x)
	case now-s.calm >= calm && x.Size > s.cfg.Min:
		why := fmt.Sprintf("no connection has waited for %v", (now - s.calm).Round(100*time.Millisecond))
		if x.Size <= s.low { // the step before has held
			s.patience = max(s.patience/2, s.cfg.Calm)
		}
		s.size, s.calm, s.shrunk = x.Size-1, now, now
		return Decision{Size: s.size, Why: why}
	}
	return Decision{Why: "nothing is to be changed"}
}

// grow undoes a step down that was too much, or adds half of what there is.
func (s *State) grow(now Time, x Sample) Decision {
	by := max(1, x.Size/2)
	if s.shrunk != 0 && now-s.shrunk < 2*s.patience {
		s.low, s.patience = x.Size, min(2*s.patience, maxPatience*s.cfg.Calm)
		by = 1
	} else if x.Size == s.low+1 { // as it undid that, and nearly suffices
		by = 1
	}
	s.size, s.shrunk, s.grown = min(x.Size+by, s.cfg.Max), 0, true
	return Decision{Size: s.size, Why: waited(x.Oldest)}
}

func waited(d Time) string {
	return fmt.Sprintf("a connection has waited for %v", d.Round(time.Millisecond))
}
