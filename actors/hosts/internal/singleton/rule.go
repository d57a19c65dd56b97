// Package singleton is the rule by which one host of a cluster runs what each of them could: a
// state machine of one host, without clocks, goroutines or calls.
//
// The holder of a name runs. When what runs ends without having been asked to, that is a failure,
// as it has its own supervisor for what can be mended in place: it is recorded in the engine for
// the period of the budget, the name is given back, and this host stands back for a while, so that
// another one tries. The failure that uses up the budget of the cluster is followed by a mark, at
// which every host gives up. Only the holder records, so no two count at once.
package singleton

import "time"

// Time is a time of one host's clock since some moment.
type Time time.Duration

// EventKind is what has happened.
type EventKind uint8

// The events. Each effect that is a call is answered by exactly one of the events behind it.
const (
	Look     EventKind = iota // the view has changed, or the time of Next has come: see State.Step
	Won                       // of Claim
	NotWon                    // of Claim: another was first, or it is not known
	Lost                      // the name is, or soon may be, another's
	Ended                     // of Run: what runs has ended, by itself or for Cancel
	Counted                   // of Count: it is failure N of the period
	Marked                    // of Mark
	Failed                    // of Count or Mark: not known whether it was done
	Released                  // of Release
	Stop                      // no longer wanted on this host
)

// An Event is the input of Step. Its kind says which fields it has.
type Event struct {
	Kind    EventKind
	Held    bool // Look: somebody holds the name
	GivenUp bool // Look: there is a mark
	N       int
}

// Effect is what is to be done.
type Effect uint8

// The effects.
const (
	Claim   Effect = iota // call: claim the name
	Run                   // call: start what runs under the name
	Cancel                // have it end
	Count                 // call: record its failure, if the name is still held, and count those there are
	Mark                  // call: record that the cluster gives up, if the name is still held
	Release               // call: give the name back
	Finish                // it is over on this host, as asked
	GiveUp                // it is over on this host, for the cluster gives up
)

func (e Effect) String() string {
	return [...]string{"claim", "run", "cancel", "count", "mark", "release", "finish", "give up"}[e]
}

type holdPhase uint8

const (
	standing holdPhase = iota // for the name, not before at
	claiming
	running
	cancelled // it is to end
	pausing   // a count or a mark has failed; it is made again at at
	counting
	marking
	releasing
	over
)

// A Config is a budget: Max failures within some period, which is the engine's to count, are one
// too many. StandBack is for how long a host whose own has failed leaves it to others.
type Config struct {
	Max              int
	StandBack, Pause time.Duration
}

// A State is that of one host.
type State struct {
	cfg           Config
	phase         holdPhase
	at            Time
	stop, givenUp bool
	lost          bool
	mark          bool // pausing: for Mark, not for Count
	held          bool // as the last Look says
}

// New returns the state before the first event.
func New(cfg Config) *State { return &State{cfg: cfg, held: true} }

// Next returns when Look is due if nothing else comes; 0: never.
func (s *State) Next() Time {
	if s.phase == standing && !s.held || s.phase == pausing {
		return s.at
	}
	return 0
}

// Step applies an event and returns what is to be done, if anything. What does not fit changes
// nothing.
func (s *State) Step(now Time, ev Event) []Effect {
	if s.phase == over {
		return nil
	}
	switch ev.Kind {
	case Look:
		s.held, s.givenUp = ev.Held, s.givenUp || ev.GivenUp
	case Stop:
		s.stop = true
	case Lost:
		s.lost = true
	case Won, NotWon, Ended, Counted, Marked, Failed, Released:
	}
	switch s.phase {
	case standing:
		switch {
		case s.givenUp:
			return s.to(over, GiveUp)
		case s.stop:
			return s.to(over, Finish)
		case !s.held && now >= s.at:
			s.lost = false
			return s.to(claiming, Claim)
		}
	case claiming:
		switch {
		case ev.Kind == NotWon:
			s.phase, s.at = standing, now+Time(s.cfg.Pause) // or when the view shows that it is free
			return s.Step(now, Event{Kind: Look, Held: s.held})
		case ev.Kind == Won && (s.stop || s.lost || s.givenUp):
			return s.to(releasing, Release)
		case ev.Kind == Won:
			return s.to(running, Run)
		}
	case running:
		switch {
		case ev.Kind == Ended && (s.lost || s.stop):
			return s.to(releasing, Release)
		case ev.Kind == Ended:
			return s.to(counting, Count)
		case s.stop, s.lost:
			return s.to(cancelled, Cancel)
		}
	case cancelled:
		if ev.Kind == Ended {
			return s.to(releasing, Release)
		}
	case counting, marking:
		switch {
		case ev.Kind == Counted && ev.N >= s.cfg.Max:
			return s.to(marking, Mark)
		case ev.Kind == Counted, ev.Kind == Failed && s.lost:
			return s.to(releasing, Release)
		case ev.Kind == Failed:
			s.mark, s.phase, s.at = s.phase == marking, pausing, now+Time(s.cfg.Pause)
		case ev.Kind == Marked:
			s.givenUp = true
			return s.to(releasing, Release)
		}
	case pausing:
		switch {
		case s.lost, s.stop:
			return s.to(releasing, Release)
		case now >= s.at && s.mark:
			return s.to(marking, Mark)
		case now >= s.at:
			return s.to(counting, Count)
		}
	case releasing:
		if ev.Kind == Released {
			s.phase, s.at = standing, now+Time(s.cfg.StandBack)
			return s.Step(now, Event{Kind: Look, Held: s.held})
		}
	case over:
	}
	return nil
}

func (s *State) to(p holdPhase, do Effect) []Effect {
	s.phase = p
	return []Effect{do}
}
