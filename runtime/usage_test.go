package coppice

import "testing"

// TestMeasured: sums stay when what has counted ends, or begins anew, and the counts of two that
// have a name are added up.
func TestMeasured(t *testing.T) {
	type live = map[uint64]counted
	for name, rows := range map[string][]struct {
		live live
		want map[string]int64
	}{
		"CPU time": {
			{live{10: {"web/0", 5}}, map[string]int64{"web/0": 5}},
			{live{10: {"web/0", 7}, 11: {"web/0", 2}}, map[string]int64{"web/0": 9}}, // a reload
			{live{11: {"web/0", 3}, 12: {"web", 1}}, map[string]int64{"web/0": 10, "web": 1}},
			{live{12: {"web/0", 4}}, map[string]int64{"web/0": 13, "web": 1}}, // a spare took the place
			{live{12: {"web/0", 2}}, map[string]int64{"web/0": 15, "web": 1}}, // it began anew
			{nil, map[string]int64{"web/0": 15, "web": 1}},
		},
		"two new listener processes": {
			{live{1: {"http", 3}}, map[string]int64{"http": 3}},
			{live{1: {"http", 5}}, map[string]int64{"http": 5}},
			{live{1: {"http", 1}}, map[string]int64{"http": 6}},
			{live{1: {"http", 0}}, map[string]int64{"http": 6}},
			{live{1: {"http", 2}}, map[string]int64{"http": 8}},
		},
		"two sockets without a name, one of which is closed": {
			{live{1: {"", 10}, 2: {"", 5}}, map[string]int64{"": 15}},
			{live{1: {"", 10}}, map[string]int64{"": 15}},
			{live{1: {"", 11}, 3: {"", 1}}, map[string]int64{"": 17}},
		},
	} {
		g := growing{sums: map[string]int64{}}
		for i, row := range rows {
			got := g.add(row.live)
			for what, want := range row.want {
				if got[what] != want {
					t.Errorf("%s: collection %d: %q has %d, want %d", name, i, what, got[what], want)
				}
			}
		}
	}
}
