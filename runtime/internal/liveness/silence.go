package liveness

import "time"

// starvedShare is the divisor for a turn in which the process waited for a CPU: on a busy machine
// the process has four times as long.
const starvedShare = 4

// Config sets how often a process is asked, and how long it may be silent.
type Config struct {
	Every   time.Duration
	Timeout time.Duration // at least Every
}

// A Verdict is the result of a turn.
type Verdict uint8

// The verdicts.
const (
	Fine      Verdict = iota // nothing to report
	Late                     // silent for half of Timeout now
	Recovered                // answers again, after Late
	Hung                     // silent for all of Timeout; the last verdict
)

// String returns the verdict's name.
func (v Verdict) String() string {
	return [...]string{"fine", "late", "recovered", "hung"}[v]
}

// A Turn is what the watcher saw since its previous turn.
type Turn struct {
	// Elapsed is the time since the previous turn, by a clock that does not jump.
	Elapsed time.Duration

	// Answered is set when the process answered that it is well.
	Answered bool

	// Starved is set when the process had work to do and waited for a CPU for most of the time.
	Starved bool
}

// A Silence counts how long one process has not answered. It has no clock: its owner calls Step at
// each turn. The zero value is that of a process that has just answered.
type Silence struct {
	counted time.Duration
	verdict Verdict // Fine, Late or Hung
}

// Step counts a turn. A turn counts Config.Every at most, however long it was: an owner that was
// itself stopped, starved or suspended does not know whether the process was silent during that
// time.
func (s *Silence) Step(cfg Config, t Turn) Verdict {
	before := s.verdict
	switch {
	case before == Hung:
		return Hung
	case t.Answered:
		*s = Silence{}
		if before == Late {
			return Recovered
		}
		return Fine
	}
	turn := min(t.Elapsed, cfg.Every)
	if t.Starved {
		turn /= starvedShare
	}
	s.counted += turn
	switch {
	case s.counted >= cfg.Timeout:
		s.verdict = Hung
		return Hung
	case before == Fine && s.counted >= cfg.Timeout/2:
		s.verdict = Late
		return Late
	}
	return Fine
}

// Counted returns how long the process has been silent, by the count of Step.
func (s *Silence) Counted() time.Duration { return s.counted }
