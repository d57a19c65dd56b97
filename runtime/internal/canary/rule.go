// Package canary judges a new generation of a pool's workers by what they serve, against the old
// one. It is a pure rule: [State.Step] takes what both have served and returns what is to be done.
// It has no goroutine and no clock; package coppice drives it.
//
// What differs is counted as worse only if luck does not explain it: the doubt is for the new
// generation. So a small sample gives no false alarm, and finds only what is much worse.
package canary

import (
	"cmp"
	"fmt"
	"math"
	"time"
)

// Time is the time since both generations run.
type Time = time.Duration

// Config is what the user has set. It is complete and immutable.
type Config struct {
	For      Time
	Requests uint64 // of each generation, before it is judged by what it serves
	Crashes  int
	Errors   float64
	Slower   float64
	Memory   int64 // 0 = it is not judged by memory
	Late     bool  // the old generation is gone; the end of For is forward, whatever was served
}

// Side is one generation.
type Side struct {
	Figures
	Crashes int
	Time    Time  // in which it did, of its workers, added up
	Growth  int64 // of the memory of a worker, in bytes
	Grew    Time  // in which it did
	Workers int   // that it has
}

// Course is what is to be done.
type Course uint8

// The courses.
const (
	Wait    Course = iota // it is too early to tell
	Hold                  // For is over, and too little was served: a human may decide
	Forward               // nothing is worse
	Back                  // it is worse
)

// Verdict is what is to be done, and why in one line.
type Verdict struct {
	Course Course
	Why    string
}

// Limits of the rule.
const (
	luck  = 3.0 // standard deviations of luck in a share of errors, and in crashes that the old generation has too
	drift = 2.5 // the same in a latency, of each generation
	looks = 3   // in a row that find it worse by what it serves; one look may meet a hiccup

	parts = 8    // of Requests: its latency is looked at in each, and is to be higher
	most  = 0.75 // in so many of them. A process that stands still for a moment makes many requests slow, in one part
)

// State is what the rule remembers.
type State struct {
	cfg   Config
	worse int // looks in a row

	seen   [2]Figures // of both, at the end of the last part
	parts  int
	slower [len(quantiles)]int // parts in which it was
}

// quantiles are those of the latency that are compared.
var quantiles = [...]float64{0.5, 0.99}

// New returns the rule of a canary that begins.
func New(cfg Config) *State { return &State{cfg: cfg} }

// Step takes what both generations have served so far.
func (s *State) Step(now Time, before, after Side) Verdict {
	numbers := compare(before, after)
	expected := float64(before.Crashes) * after.Time.Seconds() / max(before.Time.Seconds(), 1)
	if n := after.Crashes; n >= s.cfg.Crashes && (expected == 0 || 2*(math.Sqrt(float64(n))-math.Sqrt(expected)) > luck) {
		return Verdict{Back, "it crashes: " + numbers}
	}
	s.part(before.Figures, after.Figures)
	enough := min(before.Requests+before.Good+before.Bad, after.Requests+after.Good+after.Bad) >= s.cfg.Requests
	what := ""
	if enough {
		what = s.served(before.Figures, after.Figures)
	}
	if s.cfg.Memory > 0 {
		was := float64(before.Growth) * float64(after.Grew) / float64(max(before.Grew, 1))
		if float64(after.Growth) > float64(s.cfg.Memory)+max(was, 0) {
			what = cmp.Or(what, "its memory grows")
		}
	}
	if what == "" {
		s.worse = 0
	} else if s.worse++; s.worse >= looks {
		return Verdict{Back, what + ": " + numbers}
	}
	switch {
	case now < s.cfg.For || s.worse > 0:
		return Verdict{Wait, numbers}
	case !enough && !s.cfg.Late || after.Workers == 0:
		return Verdict{Hold, fmt.Sprintf("each needs %d requests: %s", s.cfg.Requests, numbers)}
	}
	return Verdict{Forward, numbers}
}

// served says what of what was served is worse; "" if nothing is.
func (s *State) served(before, after Figures) string {
	for _, share := range []struct {
		what                         string
		was, wasOf, failed, failedOf uint64
	}{
		{"its requests fail", before.Failed, before.Requests, after.Failed, after.Requests},
		{"it reports what is bad", before.Bad, before.Good + before.Bad, after.Bad, after.Good + after.Bad},
	} {
		if share.failedOf == 0 {
			continue
		}
		if ratio(share.failed, share.failedOf)-ratio(share.was, share.wasOf)-s.cfg.Errors > luck*math.Sqrt(variance(share.failed, share.failedOf)+variance(share.was, share.wasOf)) {
			return share.what
		}
	}
	for i, q := range quantiles {
		if s.parts >= parts/2 && float64(s.slower[i]) >= most*float64(s.parts) && float64(after.Quantile(q, -drift)) > s.cfg.Slower*float64(before.Quantile(q, drift)) {
			return "it is slower"
		}
	}
	return ""
}

// part ends a part of the sample when both have served enough in it.
func (s *State) part(before, after Figures) {
	if before.Requests < s.seen[0].Requests || after.Requests < s.seen[1].Requests { // they have begun anew
		s.seen = [2]Figures{}
	}
	var was, is Figures
	for _, d := range []struct {
		to       *Figures
		now, old Figures
	}{{&was, before, s.seen[0]}, {&is, after, s.seen[1]}} {
		d.to.Add(d.now, 1)
		d.to.Add(d.old, -1)
	}
	if min(was.Requests, is.Requests) < max(s.cfg.Requests/parts, 100) {
		return
	}
	s.seen = [2]Figures{before, after}
	s.parts++
	for i, q := range quantiles {
		if float64(is.Quantile(q, 0)) > s.cfg.Slower*float64(was.Quantile(q, 0)) {
			s.slower[i]++
		}
	}
}

func ratio(n, of uint64) float64 { return float64(n) / float64(max(of, 1)) }

// variance returns that of the share of n, as if there had been one more of each.
func variance(n, of uint64) float64 {
	p := float64(n+1) / float64(of+2)
	return p * (1 - p) / float64(of+2)
}

// compare returns what the new and the old generation have served, in numbers.
func compare(before, after Side) string {
	text := fmt.Sprintf("new and old: %d and %d crashes, %d and %d requests", after.Crashes, before.Crashes, after.Requests, before.Requests)
	if after.Requests+before.Requests > 0 {
		text += fmt.Sprintf(", %.2f %% and %.2f %% failed, p50 %v and %v, p99 %v and %v", 100*ratio(after.Failed, after.Requests), 100*ratio(before.Failed, before.Requests),
			round(after.Quantile(0.5, 0)), round(before.Quantile(0.5, 0)), round(after.Quantile(0.99, 0)), round(before.Quantile(0.99, 0)))
	}
	if after.Good+after.Bad+before.Good+before.Bad > 0 {
		text += fmt.Sprintf(", %.2f %% and %.2f %% bad", 100*ratio(after.Bad, after.Good+after.Bad), 100*ratio(before.Bad, before.Good+before.Bad))
	}
	if after.Growth != 0 || before.Growth != 0 {
		const mib = 1 << 20
		text += fmt.Sprintf(", memory %+.1f MiB and %+.1f MiB", float64(after.Growth)/mib, float64(before.Growth)/mib)
	}
	return text
}

// round returns d with three digits or so.
func round(d time.Duration) time.Duration {
	for unit := time.Second; unit > time.Nanosecond; unit /= 10 {
		if d >= 100*unit {
			return d.Round(unit)
		}
	}
	return d
}
