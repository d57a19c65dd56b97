package coppice

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// Snapshot returns the whole tree as it is now. It never waits: a child that is being started or
// stopped is shown in that state.
func (rt *Runtime) Snapshot() Tree {
	cursor := rt.events.Last()
	n, t := rt.tree.Snapshot(), Tree{}
	rt.branch(&t, &n, "", rt.Listeners())
	t.Name, t.Role, t.PID, t.LostLines = childproto.MasterName, RoleMaster, os.Getpid(), rt.output.Lost()
	t.Cursor = cursor
	if rt.reaper != nil {
		t.Reaped = rt.reaper.Reaped()
	}
	return t
}

// roleOf returns the role in a Tree of a spec's child.
func roleOf(spec ChildSpec) Role {
	if _, ok := spec.(ListenerSpec); ok {
		return RoleListener
	}
	return Role(strings.ToLower(fmt.Sprintf("%T", spec)[len("coppice."):]))
}

// onlyPools reports whether all owners of a socket are pools: no ListenerSpec of the tree shows it.
func (rt *Runtime) onlyPools(owners []string) bool {
	for _, path := range owners {
		n := rt.root.find(path)
		if n == nil {
			return false
		}
		if _, is := n.spec.(Pool); !is {
			return false
		}
	}
	return true
}

// branch converts a supervisor's node to a Tree, in its place. path is the node's in the specs.
func (rt *Runtime) branch(t *Tree, n *supervisor.Node, path string, listeners []ListenerInfo) {
	*t = Tree{
		Name: n.ID, Role: RoleSupervisor, State: State(n.Status.String()), Incarnation: int(n.Incarnation), Leaked: n.Leaked,
	}
	if !n.Since.IsZero() {
		t.Since = &n.Since
	}
	if n.LastExit != nil {
		t.LastExit = n.LastExit.String()
	}
	if v, ok := n.Info.(actors.ActorView); ok {
		i := v.Now()
		t.Actor = &i
	}
	found := rt.root.find(path)
	if i, ok := n.Info.(info); ok {
		t.Role, t.Name, t.ID, t.PID, t.Generation, t.Relinked, t.Requests, t.Status = i.role, i.Name, i.ID, i.PID, i.Generation, i.relinked, i.requests, i.status
		t.Resources = i.group.Usage()
		if i.Incarnation != 0 { // of a worker without a slot, which the supervisor does not see
			t.Incarnation = i.Incarnation
		}
	} else if found != nil {
		t.Role = roleOf(found.spec)
		if c, err := rt.pools.find(path); t.Role == RolePool && err == nil {
			if says := c.autoscaled.Load(); says != nil {
				t.Autoscale = *says
			}
			if says := c.judged.Load(); says != nil {
				t.Canary = *says
			}
		}
	}
	if found != nil {
		t.Sandbox = found.sandbox()
	}
	for _, l := range listeners {
		if slices.Contains(l.owners, path) && (t.Role == RoleListener || rt.onlyPools(l.owners)) {
			t.Listeners = append(t.Listeners, l)
		}
	}
	if n.Type == supervisor.TypeSupervisor || path == "" {
		t.Strategy, t.Budget, t.Used = n.Strategy.String(), n.Max, n.Used
	}
	if len(n.Children) > 0 {
		t.Children = make([]Tree, len(n.Children))
	}
	for i := range n.Children {
		at := n.Children[i].ID
		if path != "" {
			at = path + "/" + at
		}
		rt.branch(&t.Children[i], &n.Children[i], at, listeners)
	}
}
