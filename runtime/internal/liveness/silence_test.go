package liveness

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var config = Config{Every: time.Second, Timeout: 10 * time.Second}

// Each letter is a turn: a second in which the process answered (a), was silent (.), or was silent
// and starved (s); an hour in which its owner did not run and it was silent (Z).
var turns = map[rune]Turn{
	'a': {Elapsed: time.Second, Answered: true},
	'.': {Elapsed: time.Second},
	's': {Elapsed: time.Second, Starved: true},
	'Z': {Elapsed: time.Hour},
}

func TestVerdicts(t *testing.T) {
	for _, tt := range []struct{ name, turns, want string }{
		{"answers", "aaaa", ""},
		{"a pause of a garbage collector", "a....aaaa", ""},
		{"late, and back", "a.....aa", "late recovered"},
		{"hangs", "a..........", "late hung"},
		{"hangs once", "a.............", "late hung hung hung hung"},
		{"P56 a starved machine", "a" + strings.Repeat("s", 19) + "a", ""},
		{"P56 a starved machine, for very long", "a" + strings.Repeat("s", 40), "late hung"},
		{"P56 the whole tree was stopped", "aZa", ""},
		{"P56 the machine slept, again and again", "aZaZaZaZaZaZaZaZaZaZaZa", ""},
		{"stopped, then it hangs", "aZ.........", "late hung"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var p Silence
			var got []string
			for _, r := range tt.turns {
				if v := p.Step(config, turns[r]); v != Fine {
					got = append(got, v.String())
				}
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("%s: %q, want %q", tt.turns, s, tt.want)
			}
		})
	}
}

// A process hangs only after Timeout/Every turns without an answer between them,
// and always after four times as many.
func TestBounds(t *testing.T) {
	letters := []rune("a.sZ")
	rng := rand.New(rand.NewPCG(1, 2))
	const least, most = 10, 40
	for range 20_000 {
		var p Silence
		silent := 0
		for range 60 {
			turn := turns[letters[min(rng.IntN(30), 3)]] // seldom an answer
			if turn.Answered {
				silent = 0
			} else {
				silent++
			}
			v := p.Step(config, turn)
			if v == Hung && silent < least {
				t.Fatalf("hung after %d turns of silence", silent)
			}
			if v != Hung && silent >= most {
				t.Fatalf("%v after %d turns of silence", v, silent)
			}
			if v == Hung {
				break
			}
		}
	}
}
