package rules

import (
	"math"
	"math/bits"
	"time"
)

// Backoff spreads a child's restarts. The zero value is none: OTP restarts at once.
//
// The n-th consecutive failure waits a uniformly random time between zero and min(Max, Initial ×
// Factor^(n-1)) ("full jitter"). A child that was healthy for longer than twice its latest bound,
// and longer than ResetAfter, starts again at n = 1; that it started is not enough, or a crash loop
// slower than the delay would go on for ever (supervisor(3)).
type Backoff struct {
	Initial    time.Duration // the first bound; zero: no back-off
	Max        time.Duration // the cap
	Factor     float64       // at least 1
	ResetAfter time.Duration // at least this long healthy before a reset
	Attempts   int           // give up after this many consecutive failures; zero: no limit
	NoJitter   bool          // wait the bound itself
	AtOnce     bool          // what was up is restarted at once as long as no more than Flags.Max were
}

func (b Backoff) enabled() bool { return b.Initial > 0 }

// bound returns the longest wait after the n-th consecutive failure, n ≥ 1.
func (b Backoff) bound(n int) time.Duration {
	d := float64(b.Initial) * math.Pow(b.Factor, float64(n-1))
	if d >= float64(b.Max) { // also +Inf
		return b.Max
	}
	return time.Duration(d)
}

// jitter maps 64 random bits to [0, d].
func (b Backoff) jitter(d time.Duration, r uint64) time.Duration {
	if b.NoJitter || d <= 0 {
		return d
	}
	hi, _ := bits.Mul64(uint64(d)+1, r)
	return time.Duration(hi)
}
