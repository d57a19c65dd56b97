package singleton

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestSteps plays scenarios: events, and what is to be done after each.
func TestSteps(t *testing.T) {
	type step struct {
		at   Time
		ev   Event
		want string
	}
	free, taken, mark := Event{Kind: Look}, Event{Kind: Look, Held: true}, Event{Kind: Look, Held: true, GivenUp: true}
	of := func(k EventKind) Event { return Event{Kind: k} }
	const second = Time(time.Second)
	for _, row := range []struct {
		name  string
		due   Time // of the last step, unless 0
		steps []step
	}{
		{"a name that is free is claimed, and run under", 0, []step{
			{0, taken, ""},
			{0, free, "claim"},
			{0, of(Won), "run"},
			{0, taken, ""},
			{0, of(Stop), "cancel"},
			{0, of(Ended), "release"},
			{0, of(Released), "finish"},
		}},
		{"another was first", 0, []step{{0, free, "claim"}, {0, taken, ""}, {0, of(NotWon), ""}, {second, taken, ""}, {second, free, "claim"}}},
		{"it is not known who was first", 0, []step{{0, free, "claim"}, {0, of(NotWon), ""}, {second / 2, free, ""}, {second, free, "claim"}}},
		{"the name is lost: it ends, then the name is given back, and no failure counts", 0, []step{
			{0, free, "claim"}, {0, of(Won), "run"}, {0, of(Lost), "cancel"}, {0, of(Lost), ""}, {0, of(Ended), "release"}, {0, of(Released), ""},
		}},
		{"a failure: this host stands back", 0, []step{
			{0, free, "claim"},
			{0, of(Won), "run"},
			{0, of(Ended), "count"},
			{0, Event{Kind: Counted, N: 1}, "release"},
			{0, of(Released), ""},
			{0, free, ""},
			{4 * second, free, ""},
			{5 * second, free, "claim"},
		}},
		{"the view has shown that the name is free before the release was answered", 5 * second, []step{
			{0, free, "claim"},
			{0, of(Won), "run"},
			{0, taken, ""},
			{0, of(Lost), "cancel"},
			{0, of(Ended), "release"},
			{0, free, ""},
			{0, of(Released), ""},
			{5 * second, free, "claim"},
		}},
		{"the failure that uses up the budget", 0, []step{
			{0, free, "claim"}, {0, of(Won), "run"}, {0, of(Ended), "count"}, {0, Event{Kind: Counted, N: 3}, "mark"}, {0, of(Marked), "release"}, {0, of(Released), "give up"},
		}},
		{"another host's failure uses it up", 0, []step{{0, taken, ""}, {0, mark, "give up"}}},
		{"given up between claim and answer", 0, []step{{0, free, "claim"}, {0, mark, ""}, {0, of(Won), "release"}, {0, of(Released), "give up"}}},
		{"a count is made again, unless the name is lost", 0, []step{
			{0, free, "claim"},
			{0, of(Won), "run"},
			{0, of(Ended), "count"},
			{0, of(Failed), ""},
			{second, taken, "count"},
			{second, of(Lost), ""},
			{second, of(Failed), "release"},
		}},
		{"a mark is made again, not the count", 0, []step{
			{0, free, "claim"}, {0, of(Won), "run"}, {0, of(Ended), "count"}, {0, Event{Kind: Counted, N: 4}, "mark"}, {0, of(Failed), ""}, {second, taken, "mark"},
		}},
		{"stopped before the name was won", 0, []step{{0, free, "claim"}, {0, of(Stop), ""}, {0, of(Won), "release"}, {0, of(Released), "finish"}}},
		{"lost before it was known to be won", 0, []step{{0, free, "claim"}, {0, of(Lost), ""}, {0, of(Won), "release"}}},
		{"stopped while it waits", 0, []step{{0, taken, ""}, {0, of(Stop), "finish"}, {0, free, ""}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := New(Config{Max: 3, StandBack: 5 * time.Second, Pause: time.Second})
			for i, step := range row.steps {
				if row.due != 0 && i == len(row.steps)-1 && s.Next() != row.due {
					t.Errorf("the last step is due at %v, want %v", s.Next(), row.due)
				}
				got := strings.Trim(fmt.Sprint(s.Step(step.at, step.ev)), "[]")
				if got != step.want {
					t.Fatalf("step %d, %+v: %q, want %q", i, step.ev, got, step.want)
				}
			}
		})
	}
}

// TestRandom: whatever comes in whatever order, a call is made only when the one before was
// answered, the name is given back exactly once for each time it was won, and only when nothing
// runs under it; after a stop it comes to an end.
func TestRandom(t *testing.T) {
	answers := map[Effect][]Event{
		Claim: {{Kind: Won}, {Kind: NotWon}}, Run: {{Kind: Ended}}, Release: {{Kind: Released}},
		Count: {{Kind: Counted, N: 1}, {Kind: Counted, N: 3}, {Kind: Failed}}, Mark: {{Kind: Marked}, {Kind: Failed}},
	}
	ends := make(map[Effect]int)
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		s := New(Config{Max: 3, StandBack: 5 * time.Second, Pause: time.Second})
		var call *Effect
		won, runs, over := 0, false, false
		for now := Time(0); !over; now += Time(time.Second) / 4 {
			ev := Event{Kind: Look, Held: r.IntN(3) == 0, GivenUp: r.IntN(200) == 0}
			switch n := r.IntN(10); {
			case n < 5 && call != nil:
				choice := answers[*call]
				ev = choice[r.IntN(len(choice))]
				switch ev.Kind {
				case Won:
					won++
				case Ended:
					runs = false
				default:
				}
				call = nil
			case n == 5:
				ev = Event{Kind: Lost}
			case n == 6 && now > Time(10*time.Second):
				ev = Event{Kind: Stop}
			}
			for _, e := range s.Step(now, ev) {
				switch e {
				case Cancel:
					if !runs {
						t.Fatalf("seed %d: cancel of nothing", seed)
					}
					continue
				case Finish, GiveUp:
					over = true
					ends[e]++
					if won != 0 || call != nil {
						t.Fatalf("seed %d: over while it holds", seed)
					}
					continue
				case Run:
					runs = true
				case Release:
					if runs || won != 1 {
						t.Fatalf("seed %d: released, held %d times, runs: %v", seed, won, runs)
					}
					won--
				case Claim, Count, Mark:
				}
				if call != nil {
					t.Fatalf("seed %d: %v before the answer to %v", seed, e, *call)
				}
				call = &e
			}
			if now > Time(time.Hour) {
				t.Fatalf("seed %d: it does not end", seed)
			}
		}
	}
	if ends[Finish] == 0 || ends[GiveUp] == 0 {
		t.Errorf("ends: %v", ends)
	}
}
