// Package signalrules decides what a master does about the signals that it gets. State is a pure
// machine: it has no goroutine, clock or lock, and knows no signal numbers.
package signalrules

import (
	"fmt"
	"time"
)

// Signal is a signal with a meaning for a master.
type Signal uint8

// The signals, by their names on Unix.
const (
	Terminate Signal = iota // SIGTERM
	Interrupt               // SIGINT
	Quit                    // SIGQUIT
	Hangup                  // SIGHUP
	More                    // SIGTTIN: one worker more
	Fewer                   // SIGTTOU: one worker less
	User1                   // SIGUSR1
	User2                   // SIGUSR2

	Count = iota // number of signals
)

// String returns the signal's name on Unix.
func (s Signal) String() string {
	return name(s, "SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2")
}

// ends reports whether the signal asks the program to end.
func (s Signal) ends() bool { return s <= Quit }

// Gathered bounds the workers that signals may add, or take away, at once. It is more than an
// operator asks for by hand, so more of them at once are the terminal's.
const Gathered = 16

// gatherTime is how long further changes of the number of workers are waited for, so that several
// signals in a row are one change.
const gatherTime = 100 * time.Millisecond

// EventKind is what happened.
type EventKind uint8

// The kinds of [Event].
const (
	// Got: Signal has come.
	Got EventKind = iota
	// Up: the tree is up.
	Up
	// Tick: the time of Wake has come.
	Tick
)

// Event is something that happened.
type Event struct {
	Kind   EventKind
	Signal Signal // of Got
}

// EffectKind is what is to be done.
type EffectKind uint8

// The kinds of [Effect].
const (
	// Stop: end the tree in order.
	Stop EffectKind = iota
	// Kill: kill what still runs, and end the program. No effect follows.
	Kill
	// PrintStacks: print the stacks of the goroutines.
	PrintStacks
	// Reload: reload the tree.
	Reload
	// Scale: give the first pool By workers more.
	Scale
	// PrintTree: print the tree.
	PrintTree
	// Ignore: have the kernel drop Signal from now on, because the terminal sends it.
	Ignore
	// Upgrade: replace the whole program.
	Upgrade
	// Wake: send a Tick after In.
	Wake
)

// String returns the kind's name.
func (k EffectKind) String() string {
	return name(k, "stop", "kill", "stacks", "reload", "scale", "tree", "ignore", "upgrade", "wake")
}

// Effect is something to be done. Its kind decides which fields are used.
type Effect struct {
	Kind   EffectKind
	By     int
	Signal Signal
	In     time.Duration
}

// Config is what a State is made from.
type Config struct {
	// Echo is how long after the first signal to end a further one is the same order by another
	// sender.
	Echo time.Duration

	// Terminal reports whether the terminal may have sent More or Fewer, because this program is a
	// job in its background.
	Terminal func(Signal) bool

	// Starting reports whether there is a tree to print already, whose start is under way.
	Starting func() bool
}

// State is what is known of the signals so far. The bound of everything that waits in it is a few
// words, whatever comes.
type State struct {
	cfg      Config
	first    Signal    // that asked the program to end
	stopping time.Time // when it came; zero before it did
	up       bool
	reload   bool // waits until the tree is up, as do upgrade and print
	upgrade  bool
	print    bool
	more     int // waits until gathered, or until the tree is up
	fewer    int
	ignored  [Count]bool
	gathered time.Time // when they are gathered; zero while there are none
}

// New returns the state of a program whose tree is not up yet.
func New(cfg Config) *State { return &State{cfg: cfg} }

// Step takes an event and returns what is to be done, in order.
func (s *State) Step(now time.Time, ev Event) []Effect {
	switch ev.Kind {
	case Got:
		return s.got(now, ev.Signal)
	case Up:
		s.up = true
		var out []Effect
		if s.reload && s.stopping.IsZero() {
			out = append(out, Effect{Kind: Reload})
		}
		if s.upgrade && s.stopping.IsZero() {
			out = append(out, Effect{Kind: Upgrade})
		}
		if s.print {
			out = append(out, Effect{Kind: PrintTree})
		}
		return append(out, s.scale()...)
	case Tick:
		if s.up && !s.gathered.IsZero() && !now.Before(s.gathered) {
			return s.scale()
		}
	}
	return nil
}

// Rest returns for how much longer a signal to end is an echo of the first one.
func (s *State) Rest(now time.Time) time.Duration {
	if s.stopping.IsZero() {
		return 0
	}
	return max(0, s.cfg.Echo-now.Sub(s.stopping))
}

func (s *State) got(now time.Time, sig Signal) []Effect {
	if sig.ends() {
		return s.end(now, sig)
	}
	switch sig {
	case Hangup:
		if s.up && s.stopping.IsZero() {
			return []Effect{{Kind: Reload}}
		}
		s.reload = true
	case User1:
		if s.up || s.cfg.Starting() { // a start that hangs is what is asked about
			return []Effect{{Kind: PrintTree}}
		}
		s.print = true
	case User2:
		if s.up && s.stopping.IsZero() {
			return []Effect{{Kind: Upgrade}}
		}
		s.upgrade = true
	case More:
		return s.gather(now, sig, &s.more)
	case Fewer:
		return s.gather(now, sig, &s.fewer)
	case Terminate, Interrupt, Quit:
	}
	return nil
}

// end takes a signal that asks the program to end. Wrappers (timeout(1), npm, a terminal with a
// wrapper in front) send one order as several signals, so a further one soon after the first is the
// same order. SIGQUIT after another signal is never an echo: no wrapper makes it of another signal.
func (s *State) end(now time.Time, sig Signal) []Effect {
	var out []Effect
	switch {
	case s.stopping.IsZero():
		s.stopping, s.first = now, sig
		out = []Effect{{Kind: Stop}}
	case s.Rest(now) > 0 && (sig != Quit || s.first == Quit):
		return nil
	default:
		out = []Effect{{Kind: Kill}}
	}
	if sig == Quit {
		out = append([]Effect{{Kind: PrintStacks}}, out...)
	}
	return out
}

// gather counts a signal that changes the number of workers. The terminal answers a read (a write,
// with stty tostop) of a background job by such a signal. While the signal is caught, the read is
// tried again for ever; once it is ignored, the read fails, and a write succeeds. A write needs
// tostop, so the first signal shows it. Any background job may be meant by More, so there a flood
// shows it, which no operator sends.
func (s *State) gather(now time.Time, sig Signal, n *int) []Effect {
	if s.ignored[sig] {
		return nil // it was on its way
	}
	*n++
	if (sig == Fewer || *n == Gathered+1) && s.cfg.Terminal(sig) {
		*n, s.ignored[sig] = 0, true
		return []Effect{{Kind: Ignore, Signal: sig}}
	}
	if !s.gathered.IsZero() || !s.stopping.IsZero() {
		return nil
	}
	s.gathered = now.Add(gatherTime)
	return []Effect{{Kind: Wake, In: gatherTime}}
}

// scale returns the change that was gathered.
func (s *State) scale() []Effect {
	by := min(s.more, Gathered) - min(s.fewer, Gathered)
	s.more, s.fewer, s.gathered = 0, 0, time.Time{}
	if by == 0 || !s.stopping.IsZero() {
		return nil
	}
	return []Effect{{Kind: Scale, By: by}}
}

func name[T ~uint8](v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%T(%d)", v, uint8(v))
}
