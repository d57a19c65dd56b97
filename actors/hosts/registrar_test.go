package hosts_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

// newAgreeing returns a cluster whose hosts agree by an engine in memory.
func newAgreeing(t *testing.T, names ...string) (*cluster, *hoststest.Memory) {
	m := hoststest.NewMemory()
	c := newCluster(t, time.Minute)
	c.leases = map[string]time.Duration{"a": time.Second} // no load takes anything from b
	c.engines = make(map[string]hosts.EngineSpec)
	for _, name := range names {
		c.engines[name] = m
		c.start(name, "boot"+name)
	}
	return c, m
}

// names returns the session of a process.
func (c *cluster) names(p *child, host string) *hosts.Names {
	c.t.Helper()
	n, err := c.config(host).Names(p.System)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(n.Abort)
	return n
}

// TestClusterNames: a name of the cluster is the PID of its holder on all hosts; it goes with the
// actor, with its process, and with its release, and moves to who registers it then. A message by
// the name reaches the holder, or fails.
func TestClusterNames(t *testing.T) {
	c, m := newAgreeing(t, "a", "b", "c")
	lead := hosts.Lookup("lead")
	froms := []*actors.System{c.hosts["a"].child("a").System, c.hosts["a"].master, c.hosts["b"].child("b").System, c.hosts["b"].master}
	reach := func(want string) {
		t.Helper()
		for _, from := range froms {
			until(t, from.Address()+" reaches "+want, func() bool {
				v, err := from.Ask(t.Context(), lead, "who")
				if err != nil && !errors.Is(err, actors.ErrNoActor) && !errors.Is(err, actors.ErrDown) && !errors.Is(err, actors.ErrUnavailable) {
					t.Fatal(err)
				}
				return err == nil && v == want || want == "" && errors.Is(err, actors.ErrNoActor)
			})
		}
	}
	reach("")
	fence := uint64(0)
	for round, end := range []string{"actor", "process", "release", "process", "actor"} {
		host := []string{"c", "b"}[round%2]
		p := c.hosts[host].child(host)
		n := c.names(p, host)
		who := fmt.Sprint("lead-", round)
		pid := spawn(t, p.System, who, func(ctx actor.Context) { ctx.Respond(who) })
		if _, err := n.RegisterActor(t.Context(), "lead", froms[1].Process()); !errors.Is(err, actors.ErrNoActor) {
			t.Errorf("an actor of another process: %v", err)
		}
		h, err := n.RegisterActor(t.Context(), "lead", pid)
		if err != nil {
			t.Fatal(err)
		}
		if h.Fence().Number <= fence {
			t.Errorf("fence %d after %d", h.Fence().Number, fence)
		}
		fence = h.Fence().Number
		reach(who)
		mon := froms[2].Monitor(lead)
		if v, err := froms[2].Ask(t.Context(), lead, "who"); err != nil || v != who {
			t.Errorf("%v, %v", v, err)
		}
		switch end {
		case "actor":
			if err := p.Stop(t.Context(), pid); err != nil {
				t.Error(err)
			}
			next(t, "Down", mon.C)
			next(t, "the end of the holding", h.Context().Done())
		case "process": // long before its lease ends
			p.kill(killed)
			if d := next(t, "Down", mon.C); d.Reason != killed {
				t.Errorf("Down: %v", d.Reason)
			}
		case "release":
			mon.Cancel()
			if err := h.Release(t.Context()); err != nil {
				t.Error(err)
			}
		}
		reach("")
	}
	// Cut off from the engine nothing is known when the session has ended; healed, all is.
	p := c.hosts["b"].child("b")
	last := spawn(t, p.System, "last", func(ctx actor.Context) { ctx.Respond("last") })
	until(t, "b holds the name", func() bool { // the lease of a process that was killed may end a moment later
		_, err := c.names(p, "b").RegisterActor(t.Context(), "lead", last)
		if err != nil && !errors.Is(err, actors.ErrNameTaken) {
			t.Fatal(err)
		}
		return err == nil
	})
	reach("last")
	c.hosts["a"].gateway.kill(killed)
	c.hosts["a"].startGateway()
	reach("last")
	m.Cut("a", true)
	until(t, "a knows nothing", func() bool {
		_, err := froms[0].Ask(t.Context(), lead, "who")
		return errors.Is(err, actors.ErrUnavailable)
	})
	if v, err := froms[2].Ask(t.Context(), lead, "who"); err != nil || v != "last" {
		t.Errorf("on b, which is not cut off: %v, %v", v, err)
	}
	m.Cut("a", false)
	reach("last")
}

// TestFenceInMessages: what a process sends to others carries its fence, by whatever way, and a
// guard refuses a lower one, and none.
func TestFenceInMessages(t *testing.T) {
	c := newCluster(t, time.Minute, "a", "b")
	var guard hosts.Guard
	ledger := spawn(t, c.hosts["b"].child("b").System, "ledger", func(c actor.Context) {
		if err := guard.CheckMessage(c, "billing"); !errors.Is(err, hosts.ErrStale) && err != nil {
			t.Error(err)
		} else if err != nil {
			c.Respond("stale")
		} else {
			c.Respond(c.Message())
		}
	})
	owner := func(number uint64, name string) *child {
		p := c.hosts["a"].child("a")
		f := hosts.Fence{Name: name, Number: number}
		if err := p.Mark(hosts.FenceHeader, f.String()); number != 0 && err != nil {
			t.Fatal(err)
		}
		return p
	}
	first, second, none, other := owner(7, "billing"), owner(9, "billing"), c.hosts["a"].child("a"), owner(11, "mail")
	for i, row := range []struct {
		p    *child
		want string
	}{{none, "stale"}, {other, "stale"}, {first, "x"}, {first, "x"}, {second, "x"}, {first, "stale"}, {second, "x"}} {
		until(t, "there is a trunk", func() bool {
			v, err := row.p.Ask(t.Context(), ledger, "x")
			if err == nil && v != row.want {
				t.Errorf("row %d: an ask: %v", i, v)
			}
			return err == nil
		})
		answers := make(chan any, 1) // of an actor, which knows nothing of fences
		pid := spawn(t, row.p.System, fmt.Sprint("worker-", i), func(c actor.Context) {
			if c.Message() == "go" {
				c.Request(actor.NewPID(ledger.Address, ledger.Id), "x") // a PID keeps the process that it was sent from first
			} else {
				answers <- c.Message()
			}
		})
		if err := row.p.Send(t.Context(), pid, "go"); err != nil {
			t.Fatal(err)
		}
		if v := next(t, "the answer to an actor", answers); v != row.want {
			t.Errorf("row %d: an actor: %v", i, v)
		}
	}
}

// TestStartedAnew: what the processes of a host held that have died with its former start is free
// at once, though their leases last for an hour, and so is the host's own entry; what one holds
// that lives on is not.
func TestStartedAnew(t *testing.T) {
	m := hoststest.NewMemory()
	c := newCluster(t, time.Minute)
	c.engines = map[string]hosts.EngineSpec{"a": m}
	c.dirs = map[string]string{"a": t.TempDir()}
	c.start("a", "boota")
	for _, boots := range [][2]string{{"boota", "boota2"}, {"boota2", "boota3"}} {
		former, boot, a := boots[0], boots[1], c.hosts["a"]
		dead, alive := c.names(a.child("a"), "a"), c.names(a.child("a"), "a")
		for name, n := range map[string]*hosts.Names{"freed": dead, "kept-by-" + former: alive} {
			if _, err := n.Register(t.Context(), name, nil); err != nil {
				t.Fatal(err)
			}
		}
		m.Cut("a", true) // nothing is given back
		a.gateway.kill(killed)
		dead.Die()
		m.Cut("a", false)
		b := c.start("a", boot)
		n := c.names(b.child("a"), "a")
		until(t, "the name of a process that has died is free", func() bool {
			h, err := n.Register(t.Context(), "freed", nil)
			return err == nil && h.Release(t.Context()) == nil
		})
		until(t, "the entry of the former start is gone", func() bool {
			return !slices.ContainsFunc(m.Entries(), func(e hosts.Entry) bool {
				return e.Key == "coppice/shop/hosts/a" && strings.Contains(string(e.Value), former+"\"")
			})
		})
		if _, err := n.Register(t.Context(), "kept-by-"+former, nil); !errors.Is(err, actors.ErrNameTaken) {
			t.Errorf("the name of a process that lives: %v", err)
		}
	}
}

// TestSessionEndIsNoDeath: the end of a host's session with the engine is not the end of its
// processes: whoever reaches it asks and watches on. Without a trunk besides it is
// unreachable, not down, and its PIDs work again when there is one.
func TestSessionEndIsNoDeath(t *testing.T) {
	c, m := newAgreeing(t, "a", "b")
	there := func() bool {
		return slices.ContainsFunc(m.Entries(), func(e hosts.Entry) bool { return e.Key == "coppice/shop/hosts/a" })
	}
	until(t, "a has a session", there)
	p, from := c.hosts["a"].child("a"), c.hosts["b"].child("b").System
	pid := spawn(t, p.System, "echo", echo)
	answers(t, from, pid)
	watched := []*actors.Monitor{from.Monitor(pid), from.Monitor(actors.ProcessPID(p.Address()))}
	m.Cut("a", true)
	until(t, "the session of a has ended", func() bool { return !there() })
	answers(t, from, pid)
	for _, mon := range watched {
		select {
		case d := <-mon.C:
			t.Errorf("Down of %v: %v", d.PID, d.Reason)
		default:
		}
	}
	waits := held(t, from, pid)
	answers(t, from, pid) // what came before is there
	c.hosts["a"].gateway.kill(killed)
	for _, mon := range watched {
		if d := next(t, "Down", mon.C); !errors.Is(d.Reason.Err(), actors.ErrUnreachable) {
			t.Errorf("Down without a trunk: %v", d.Reason)
		}
	}
	if err := next(t, "the end of an ask", waits); !errors.Is(err, actors.ErrUnreachable) {
		t.Errorf("an ask without a trunk: %v", err)
	}
	if _, err := from.Ask(t.Context(), pid, "x"); !errors.Is(err, actors.ErrUnreachable) {
		t.Errorf("a new ask without a trunk: %v", err)
	}
	c.hosts["a"].startGateway()
	answers(t, from, pid)
}
