package coppice

import (
	"slices"
	"testing"
)

func TestWorkersOf(t *testing.T) {
	for _, row := range []struct {
		name  string
		nodes []Tree
		want  []string
	}{
		{"all run", []Tree{{Name: "web/0", State: "running"}, {Name: "web/1", State: "running"}}, []string{"running", "running"}},
		{"one restarts", []Tree{{Name: "web/0", State: "restarting"}, {Name: "web/1", State: "running"}, {Name: "web/0", State: "starting"}}, []string{"running", "starting"}},
		{"one starts first", []Tree{{Name: "0", State: "starting"}, {Name: "web/0", State: "starting"}}, []string{"starting"}},
		{"one waits for its delay", []Tree{{Name: "web/0", State: "restarting"}}, []string{"restarting"}},
		{"a reload", []Tree{{Name: "web/0", State: "running"}, {Name: "web/0", State: "starting"}, {Name: "web/0", State: "stopping"}}, []string{"running", "starting", "stopping"}},
		{"a spare", []Tree{{Name: "web/0", State: "running"}, {Name: "web", Role: "spare", State: "running"}}, []string{"running", "spare"}},
	} {
		got := workersOf(Tree{Children: row.nodes}, "web")
		slices.Sort(got)
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
