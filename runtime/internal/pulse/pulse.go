// Package pulse decides from answers and silence whether a process hangs. It has
// no clock and asks nobody: each turn of its owner's clock is a Step.
package pulse

import (
	"fmt"
	"time"
)

// starvedShare is what a turn counts in which the process waited for a CPU: on a
// machine that has no time for it, it has four times as long.
const starvedShare = 4

// Config is how often a process is asked, and how long it may be silent.
type Config struct {
	Every   time.Duration
	Timeout time.Duration // at least Every
}

// A Verdict is what a turn came to.
type Verdict uint8

// The verdicts.
const (
	Fine      Verdict = iota // nothing to say
	Late                     // silent for half of Timeout now
	Recovered                // answers again, after Late
	Hung                     // silent for all of Timeout; the last verdict
)

// String returns the verdict's name.
func (v Verdict) String() string {
	switch v {
	case Fine:
		return "fine"
	case Late:
		return "late"
	case Recovered:
		return "recovered"
	case Hung:
		return "hung"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// A Turn is what was seen since the turn before.
type Turn struct {
	// Elapsed is the time since then, by a clock that does not jump.
	Elapsed time.Duration

	// Answered is set when the process answered, and well.
	Answered bool

	// Starved is set when it had work to do and waited for a CPU for most of the
	// time.
	Starved bool
}

// A Pulse is the silence of one process. The zero value is one that has just
// answered.
type Pulse struct {
	silence time.Duration
	verdict Verdict // Fine, Late or Hung
}

// Step counts a turn. However long it was, it counts Config.Every at most: an
// owner that was itself stopped, starved or suspended knows nothing of the time
// that it missed. So silence is never shorter than the beats that were missed.
func (p *Pulse) Step(cfg Config, t Turn) Verdict {
	before := p.verdict
	switch {
	case before == Hung:
		return Hung
	case t.Answered:
		*p = Pulse{}
		if before == Late {
			return Recovered
		}
		return Fine
	}
	counted := min(t.Elapsed, cfg.Every)
	if t.Starved {
		counted /= starvedShare
	}
	p.silence += counted
	switch {
	case p.silence >= cfg.Timeout:
		p.verdict = Hung
		return Hung
	case before == Fine && p.silence >= cfg.Timeout/2:
		p.verdict = Late
		return Late
	}
	return Fine
}

// Silence is how long the process has been silent, as counted.
func (p *Pulse) Silence() time.Duration { return p.silence }
