package process

import (
	"slices"
	"testing"
	"time"
)

// TestStrangers: a zombie is reaped after the grace, not if it is gone before, and the same number
// with another start time is another process.
func TestStrangers(t *testing.T) {
	s := strangers{grace: 5 * time.Second}
	a, b, again := Zombie{PID: 10, Start: 1}, Zombie{PID: 11, Start: 2}, Zombie{PID: 10, Start: 3}
	start := time.Unix(1000, 0)
	for _, tt := range []struct {
		at      time.Duration
		zombies []Zombie
		ripe    []Zombie
		next    time.Duration // -1: nothing waits
	}{
		{0, nil, nil, -1},
		{1 * time.Second, []Zombie{a}, nil, 6 * time.Second},
		{3 * time.Second, []Zombie{a, b}, nil, 6 * time.Second},
		{5 * time.Second, []Zombie{b}, nil, 8 * time.Second}, // a was claimed
		{6 * time.Second, []Zombie{again, b}, nil, 8 * time.Second},
		{8 * time.Second, []Zombie{again, b}, []Zombie{b}, 11 * time.Second},
		{11 * time.Second, []Zombie{again}, []Zombie{again}, 16 * time.Second},
		{16 * time.Second, []Zombie{again}, []Zombie{again}, 21 * time.Second}, // it could not be reaped
		{17 * time.Second, nil, nil, -1},
	} {
		ripe, next := s.step(start.Add(tt.at), tt.zombies)
		if !slices.Equal(ripe, tt.ripe) {
			t.Errorf("at %v: ripe %v, want %v", tt.at, ripe, tt.ripe)
		}
		if want := start.Add(tt.next); tt.next < 0 != next.IsZero() || tt.next >= 0 && !next.Equal(want) {
			t.Errorf("at %v: next %v, want %v", tt.at, next.Sub(start), tt.next)
		}
	}
	if len(s.seen) != 0 {
		t.Errorf("remembered for ever: %v", s.seen)
	}
}
