package coppice

import "testing"

// TestMeasured: sums stay when a process ends, and two processes that have a name are added up.
func TestMeasured(t *testing.T) {
	m := &measured{ended: map[string]int64{}, turnedBy: map[string]int64{}}
	for i, row := range []struct {
		live map[int]spent
		want map[string]int64
	}{
		{map[int]spent{10: {place: "web/0", cpu: 5}}, map[string]int64{"web/0": 5}},
		{map[int]spent{10: {place: "web/0", cpu: 7}, 11: {place: "web/0", cpu: 2}}, map[string]int64{"web/0": 9}}, // a reload
		{map[int]spent{11: {place: "web/0", cpu: 3}, 12: {place: "web", cpu: 1}}, map[string]int64{"web/0": 10, "web": 1}},
		{map[int]spent{12: {place: "web/0", cpu: 4}}, map[string]int64{"web/0": 13, "web": 1}}, // a spare took the place
		{map[int]spent{12: {place: "web/0", cpu: 2}}, map[string]int64{"web/0": 15, "web": 1}}, // another process with its pid
		{nil, map[string]int64{"web/0": 15, "web": 1}},
	} {
		got := m.cpu(row.live)
		for place, want := range row.want {
			if got[place] != want {
				t.Errorf("collection %d: %s has used %d, want %d", i, place, got[place], want)
			}
		}
	}
	for i, row := range []struct{ now, want int64 }{{3, 3}, {5, 5}, {1, 6}, {0, 6}, {2, 8}} { // two new listener processes
		if got := m.turnedAway(map[string]int64{"http": row.now})["http"]; got != row.want {
			t.Errorf("collection %d: %d turned away, want %d", i, got, row.want)
		}
	}
	m.turnedAway(nil)
	if len(m.turnedBy) != 0 {
		t.Errorf("a listener that is gone is kept: %v", m.turnedBy)
	}
}
