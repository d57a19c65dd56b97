package coppice

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/tracing"
)

// TestMeasureGroups: what groups use now, and the sums of a place, which have all that its groups
// counted to their ends, and nothing twice.
func TestMeasureGroups(t *testing.T) {
	group := func(kills, cpu int) *cgroup.Cgroup {
		dir := t.TempDir()
		for name, text := range map[string]string{
			"cgroup.events": "populated 1\n", "memory.current": "100\n", "memory.max": "200\n",
			"memory.events": fmt.Sprintf("oom_kill %d\n", kills), "cpu.stat": fmt.Sprintf("usage_usec %d\n", cpu),
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return cgroup.At(dir)
	}
	m := newGroupMetrics()
	var tree Tree
	measured := func() map[string]int64 {
		got := map[string]int64{}
		m.measure(func() Tree { return tree }, func(i *tracing.Instrument, n int64, labels ...attribute.KeyValue) {
			set := attribute.NewSet(labels...)
			pool, _ := set.Value(tracing.KeyPool)
			place, _ := set.Value(tracing.KeyChildPath)
			if event, ok := set.Value(tracing.KeyCgroupEvent); n != 0 && (!ok || event.AsString() == "oom_kill") {
				got[i.Name+" "+pool.AsString()+" "+place.AsString()] += n
			}
		})
		return got
	}
	show := func(id int, g *cgroup.Cgroup) {
		tree = Tree{Children: []Tree{{Name: "web", Children: []Tree{{Name: "web/0", Role: RoleWorker, ID: id, PID: 10 + id, Resources: g.Usage()}}}}}
	}
	check := func(what string, kills, ms int64) {
		t.Helper()
		want := map[string]int64{"coppice.cgroup.memory.usage web web/0": 100, "coppice.cgroup.memory.limit web web/0": 200, "coppice.cgroup.cpu.time web web/0": ms * 1e6}
		if kills > 0 {
			want["coppice.cgroup.memory.events web web/0"] = kills
		}
		if got := measured(); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	first := group(0, 5000)
	show(1, first)
	check("the first", 0, 5)
	check("the first again", 0, 5)
	first = group(1, 7000) // as it is at its end
	if u := m.ended(groupNumber(1, 11), "web/0", first); u == nil || u.OOMKills != 1 {
		t.Errorf("at its end %v", u)
	}
	show(1, first) // it is not gone yet
	if got := measured(); len(got) != 0 {
		t.Errorf("of one that has ended: %v", got)
	}
	second := group(0, 1000)
	show(2, second)
	check("the second", 1, 8)
	if u := m.ended(groupNumber(3, 13), "web/0", nil); u != nil {
		t.Errorf("of none: %v", u)
	}
}
