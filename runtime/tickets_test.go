package coppice

import (
	"slices"
	"testing"
	"time"
)

// TestTicketRing: whoever asked less than a rotation ago can read what anybody
// writes now, a ticket is good for a week, and keys end.
func TestTicketRing(t *testing.T) {
	var r ticketRing
	start := time.Unix(0, 0)
	first := r.at(start)[0]
	for hour := range 24 * 10 {
		now := start.Add(time.Duration(hour) * time.Hour)
		before := slices.Clone(r.at(now))
		if in := slices.Contains(before, first); in != (hour < 24*8) {
			t.Fatalf("after %d h: the first key is known: %v", hour, in)
		}
		if len(before) > ticketsKept+2 {
			t.Fatalf("after %d h: %d keys", hour, len(before))
		}
		if ahead := r; !slices.Contains(before, ahead.at(now.Add(ticketsRotate - 1))[0]) {
			t.Fatalf("after %d h: what is used a day later is not known", hour)
		}
	}
	if idle := r.at(start.Add(1000 * time.Hour)); len(idle) != ticketsKept+2 {
		t.Errorf("after weeks in which nobody asked: %d keys", len(idle))
	}
}
