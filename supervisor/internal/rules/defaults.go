package rules

import "time"

// A spec as users write it says "default" with zero, and so needs a third
// special value for a shutdown time of 0.
const (
	Immediately time.Duration = -3

	DefaultMax      = 1
	DefaultPeriod   = 5 * time.Second
	DefaultShutdown = 5 * time.Second
)

// Resolve returns p as the rules want it, from p as users write it: Shutdown
// zero is the default, Immediately is zero.
func (p Params) Resolve() Params {
	p.StartGrace = DefaultShutdown
	switch {
	case p.Shutdown == Immediately:
		p.Shutdown = 0
	case p.Shutdown > 0:
		p.StartGrace = max(p.StartGrace, p.Shutdown)
	case p.Shutdown == 0 && p.Supervisor:
		p.Shutdown = Infinity
	case p.Shutdown == 0:
		p.Shutdown = DefaultShutdown
	}
	return p
}

// Resolve returns f as the rules want it, from f as users write it: Max and
// Period both zero are the default intensity, zeros in Backoff its defaults.
func (f Flags) Resolve() Flags {
	if f.Max == 0 && f.Period == 0 {
		f.Max = DefaultMax
	}
	if f.Period == 0 {
		f.Period = DefaultPeriod
	}
	if b := &f.Backoff; b.enabled() {
		if b.Max == 0 {
			b.Max = max(time.Minute, b.Initial)
		}
		if b.Factor == 0 {
			b.Factor = 2
		}
	}
	return f
}
