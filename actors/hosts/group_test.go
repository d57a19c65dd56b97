package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
)

// A caller is a process that has a group.
type caller struct {
	*child
	t *testing.T
	*hosts.Group
}

func (c *cluster) caller(host string) *caller {
	c.t.Helper()
	p := c.hosts[host].child(host)
	return &caller{p, c.t, groupOf(c.t, p.System)}
}

func groupOf(t *testing.T, s *actors.System) *hosts.Group {
	t.Helper()
	g, err := hosts.NewGroup(t.Context(), s, "cache")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// join has a new actor of the process join, and returns it.
func (c *caller) join(member, id string) *actor.PID {
	c.t.Helper()
	pid := spawn(c.t, c.System, id, func(ctx actor.Context) { ctx.Respond(c.Address() + "/" + id) })
	if err := c.Join(c.t.Context(), member, pid); err != nil {
		c.t.Fatal(err)
	}
	return pid
}

// sees waits until the process sees these members, and no others.
func (c *caller) sees(want ...*actor.PID) {
	c.t.Helper()
	until(c.t, fmt.Sprint(c.Address(), " sees ", want), func() bool {
		return slices.EqualFunc(c.Members(), want, func(a, b *actor.PID) bool { return a.Equal(b) })
	})
}

// picks returns the members that have some keys.
func (c *caller) picks() (all []*actor.PID) {
	c.t.Helper()
	for i := range 100 {
		pid, err := c.Pick(fmt.Sprint("key-", i))
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, pid)
		if rank := c.Rank(fmt.Sprint("key-", i)); !rank[0].Equal(pid) || len(rank) != len(c.Members()) {
			c.t.Fatalf("picks %v, and ranks %v", pid, rank)
		}
	}
	return all
}

// moved returns how many keys were those of a member that stays, and are another's.
func moved(before, after []*actor.PID, gone ...*actor.PID) (n int) {
	for i := range before {
		if !before[i].Equal(after[i]) && !slices.ContainsFunc(gone, before[i].Equal) {
			n++
		}
	}
	return n
}

// TestGroup: processes of all hosts see the same members and pick the same one for a key, which
// answers. When one goes its keys alone move, whatever has ended it, and come back with its name.
func TestGroup(t *testing.T) {
	c := newCluster(t, time.Minute, "a", "b")
	all := []*caller{c.caller("a"), c.caller("a"), c.caller("b"), c.caller("b")}
	if pid, err := all[0].Pick("x"); !errors.Is(err, actors.ErrNoActor) {
		t.Errorf("of no members: %v, %v", pid, err)
	}
	if err := all[0].Leave(t.Context(), all[0].join("other", "x")); err != nil {
		t.Error(err)
	}
	var members []*actor.PID
	for i, p := range all {
		members = append(members, p.join(fmt.Sprint("web/", i%2), "cache"))
	}
	master := &caller{&child{System: c.hosts["b"].master}, t, groupOf(t, c.hosts["b"].master)}
	seers := append(slices.Clone(all), master)
	same := func(members ...*actor.PID) []*actor.PID {
		t.Helper()
		for _, s := range seers {
			s.sees(members...)
		}
		first := seers[0].picks()
		for _, s := range seers[1:] {
			if n := moved(first, s.picks()); n > 0 {
				t.Errorf("%d keys are another's for %s", n, s.Address())
			}
		}
		for i, pid := range first[:20] {
			from := seers[i%len(seers)]
			until(t, fmt.Sprint(from.Address(), " has no answer of ", pid), func() bool {
				v, err := from.Ask(t.Context(), pid, "who")
				if err != nil && !errors.Is(err, actors.ErrLane) || err == nil && v != pid.Address+"/"+pid.Id {
					t.Fatalf("%s: %v answers %v, %v", from.Address(), pid, v, err)
				}
				if err != nil {
					t.Logf("%s: %v: %v", from.Address(), pid, err)
				}
				return err == nil
			})
		}
		return first
	}
	before := same(members...)
	// Another with the name of one takes its place, and gives it back.
	heir := all[2].join("web/1", "heir")
	if all[2].System.Address() > all[3].System.Address() {
		t.Fatal("processes are numbered")
	}
	same(members...) // it is of an older process
	later := c.caller("b")
	heir2 := later.join("web/1", "heir")
	after := same(members[0], members[1], members[2], heir2)
	for i := range before {
		if before[i].Equal(members[3]) != after[i].Equal(heir2) {
			t.Error("a key of the place is another's")
		}
	}
	later.kill(killed)
	if n := moved(before, same(members...)); n != 0 {
		t.Errorf("%d keys are another's", n)
	}
	// An actor ends; a process ends; each moves its keys alone.
	if err := all[2].Stop(t.Context(), heir); err != nil {
		t.Error(err)
	}
	m := all[0].Monitor(members[2])
	if err := all[2].Stop(t.Context(), members[2]); err != nil {
		t.Error(err)
	}
	next(t, "Down", m.C)
	for i := range 100 { // its Down has come to this process, which has picked it: the monitor of Pick is older
		if pid, _ := all[0].Pick(fmt.Sprint("key-", i)); pid.Equal(members[2]) {
			until(t, "a member whose Down is known is not picked", func() bool {
				pid, _ := all[0].Pick(fmt.Sprint("key-", i))
				return !pid.Equal(members[2])
			})
		}
	}
	if n := moved(before, same(members[0], members[1], members[3]), members[2]); n != 0 {
		t.Errorf("%d keys are another's", n)
	}
	all[3].kill(killed)
	seers = slices.Delete(seers, 3, 4)
	if n := moved(before, same(members[0], members[1]), members[2:]...); n != 0 {
		t.Errorf("%d keys are another's", n)
	}
	again := all[2].join("web/0", "again")
	for i, pid := range same(members[0], members[1], again) {
		if before[i].Equal(members[2]) && !pid.Equal(again) {
			t.Error("a key has not come back")
		}
	}
	if err := all[1].Join(t.Context(), "web/0", members[0]); !errors.Is(err, actors.ErrNoActor) {
		t.Errorf("an actor of another process joins: %v", err)
	}
	if err := all[1].Join(t.Context(), "", members[1]); !errors.Is(err, actors.ErrName) {
		t.Errorf("without a name: %v", err)
	}
}

// TestLeaveAndAnotherGateway: Leave returns though its process tells another gateway of all its
// members at that moment, and that gateway knows all that stay.
func TestLeaveAndAnotherGateway(t *testing.T) {
	c := newCluster(t, time.Minute, "a")
	p, other := c.caller("a"), c.caller("a")
	var members []*actor.PID
	for i := range 200 {
		members = append(members, p.join(fmt.Sprintf("web/%03d", i), fmt.Sprint("cache-", i)))
	}
	other.sees(members...)
	for i, pid := range members[:3] {
		c.hosts["a"].gateway.kill(killed)
		changed := other.Changed()
		c.hosts["a"].startGateway()
		next(t, "some are told of", changed)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := p.Leave(ctx, pid); err != nil {
			t.Error(err)
		}
		cancel()
		other.sees(members[i+1:]...)
	}
}

// TestGroupCut: hosts that do not reach each other see their own members, and all when they do
// again; a gateway that is killed and a host that is started anew change nothing else.
func TestGroupCut(t *testing.T) {
	c := newCluster(t, 500*time.Millisecond, "a", "b", "c")
	var all []*caller
	var members []*actor.PID
	for _, host := range []string{"a", "b", "c"} {
		p := c.caller(host)
		all, members = append(all, p), append(members, p.join("web/0", "cache"))
	}
	everywhere := func() {
		t.Helper()
		for _, p := range all {
			p.sees(members...)
		}
	}
	everywhere()
	c.net.Cut("a", "b") // c reaches both
	all[0].sees(members[0], members[2])
	all[1].sees(members[1], members[2])
	all[2].sees(members...)
	c.net.Heal()
	everywhere()
	for range 3 {
		c.net.Reset("a", "b") // another trunk at once
		c.net.Reset("c", "b")
	}
	everywhere()
	c.hosts["b"].gateway.kill(killed)
	all[0].sees(members[0], members[2])
	c.hosts["b"].startGateway()
	everywhere()
	c.hosts["c"].gateway.kill(killed)
	c.start("c", "bootc2")
	all[2] = c.caller("c")
	members[2] = all[2].join("web/0", "cache")
	everywhere()
	if !strings.HasPrefix(members[2].Address, "bootc2.") {
		t.Error(members)
	}
	changed := all[0].Changed()
	if err := all[2].Leave(t.Context(), members[2]); err != nil {
		t.Error(err)
	}
	next(t, "it changes", changed)
	all[0].sees(members[:2]...)
	everywhereElse, err := hosts.NewGroup(t.Context(), all[1].System, "other")
	if err != nil || len(everywhereElse.Members()) != 0 {
		t.Errorf("another group: %v, %v", everywhereElse, err)
	}
}
