package coppice

import (
	"maps"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/tracing"
)

// TestMeasureParked: of parked connections there are a level, how many were given back, and what
// became of those that are not parked any more, added up over listener processes.
func TestMeasureParked(t *testing.T) {
	sums := newListenerSums()
	collect := func(all ...netactor.ListenerStats) map[string]int64 {
		got := map[string]int64{}
		measureListeners(all, sums, func(i *tracing.Instrument, n int64, labels ...attribute.KeyValue) {
			name := strings.TrimPrefix(i.Name, "coppice.connection.")
			for _, l := range labels {
				name += " " + l.Value.AsString()
			}
			got[name] = n
		})
		return got
	}
	collect(netactor.ListenerStats{Number: 1, Name: "http", Counts: netactor.Counts{
		GivenBack: 17, Resumed: 3, ParkedLeft: 1, ParkedIdle: 2, ParkedOver: 3, Passed: 4, Parked: 4,
	}})
	got := collect(
		netactor.ListenerStats{Number: 1, Name: "http", Counts: netactor.Counts{GivenBack: 5, Resumed: 2, Parked: 3}}, // of the next listener process
		netactor.ListenerStats{Number: 2, Name: "http", Counts: netactor.Counts{GivenBack: 1, Parked: 1, AtTotal: 7}},
	)
	want := map[string]int64{
		"parked http": 4, "given_back http": 23, "turned_away http": 7, "parking.ends http resumed": 5,
		"parking.ends http left": 1, "parking.ends http idle": 2, "parking.ends http over": 3, "parking.ends http passed": 4,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if got := collect(); len(got) != 0 {
		t.Errorf("of a listener that is gone: %v", got)
	}
}

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
