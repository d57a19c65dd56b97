package coppice

import (
	"testing"

	"github.com/coppice-go/coppice/supervisor"
)

// TestIsGone: what a snapshot says of a pool that has ended.
func TestIsGone(t *testing.T) {
	const (
		down, starting, running    = supervisor.Down, supervisor.Starting, supervisor.Running
		stopping, restarting       = supervisor.Stopping, supervisor.Restarting
		forOne, forAll, restForOne = supervisor.OneForOne, supervisor.OneForAll, supervisor.RestForOne
	)
	for _, tt := range []struct {
		name        string
		root, group supervisor.Status
		restart     supervisor.Restart // of the group
		strategy    supervisor.Strategy
		pool        supervisor.Status
		sibling     supervisor.Status
		absent      bool // the pool has no place
		want        bool
	}{
		{name: "its supervisor has not noticed", root: running, group: running, pool: running},
		{name: "it waits for its restart", root: running, group: running, pool: restarting},
		{name: "it is started", root: running, group: running, pool: starting},
		{name: "it was told to stop", root: running, group: running, pool: stopping},
		{name: "it is left down", root: running, group: running, pool: down, want: true},
		{name: "its place is deleted", root: running, group: running, absent: true, want: true},
		{name: "its turn in a group's restart is to come", root: running, group: running, strategy: forAll, pool: down, sibling: restarting},
		{name: "the same, and a sibling stops", root: running, group: running, strategy: restForOne, pool: down, sibling: stopping},
		{name: "a sibling restarts alone", root: running, group: running, strategy: forOne, pool: down, sibling: restarting, want: true},
		{name: "its supervisor is started again", root: running, group: restarting, absent: true},
		{name: "its supervisor is down", root: running, group: down, absent: true, want: true},
		{name: "its supervisor ends, and is permanent", root: running, group: stopping, pool: down},
		{name: "its supervisor ends, and is temporary", root: running, group: stopping, restart: supervisor.Temporary, pool: running, want: true},
		{name: "the tree is ending", root: stopping, group: running, pool: running, want: true},
		{name: "the tree has ended", root: down, group: down, absent: true, want: true},
	} {
		group := supervisor.Node{ID: "group", Status: tt.group, Restart: tt.restart, Strategy: tt.strategy}
		if !tt.absent {
			group.Children = append(group.Children, supervisor.Node{ID: "web", Status: tt.pool})
		}
		group.Children = append(group.Children, supervisor.Node{ID: "sibling", Status: tt.sibling})
		root := supervisor.Node{Status: tt.root, Children: []supervisor.Node{group}}
		if got := isGone(root, "group/web"); got != tt.want {
			t.Errorf("%s: gone %v", tt.name, got)
		}
	}
}

// TestDecides: which events lead to a look at the snapshot.
func TestDecides(t *testing.T) {
	for event, want := range map[string]bool{
		"master": true, "master/group": true, "master/group/web": true, "master/group/other": true, "master/other": true,
		"master/other/web": false, "master/group/web/0": false, "master/group/other/0": false,
	} {
		if got := decides(event, "group/web"); got != want {
			t.Errorf("%s: %v", event, got)
		}
	}
}
