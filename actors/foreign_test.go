package actors_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

func yield() { runtime.Gosched() }

// TestForeign: a process of another host is asked, sent to and monitored like a sibling, from a
// child and from the master, and its end has its true reason.
func TestForeign(t *testing.T) {
	c := newCluster(t, 2, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	spawn(t, b.Child(1), "echo", echo)
	spawn(t, b.Master, "echo", echo)
	for name, from := range map[string]*actors.System{"a child": a.Child(1), "the master": a.Master, "the gateway": a.Child(0)} {
		t.Run(name, func(t *testing.T) {
			for _, to := range []string{b.Child(1).Address(), b.Master.Address()} {
				pid := actor.NewPID(to, "echo")
				settled(t, "no trunk yet", func() bool {
					v, err := from.Ask(testContext(t), pid, "x")
					if err != nil && !errors.Is(err, actors.ErrUnreachable) {
						t.Fatal(err)
					}
					return v == "x"
				})
				if v := ask(t, from, pid, 7); v != 7 {
					t.Errorf("got %v", v)
				}
				wantErr(t, next(t, from.Monitor(actor.NewPID(to, "nobody")).C).Reason.Err(), actors.ErrNoActor)
			}
		})
	}
	from := a.Child(1)
	pid := actor.NewPID(b.Child(1).Address(), "echo")
	held := askHeld(t, testContext(t), from, pid)
	m, proc := from.Monitor(pid), from.Monitor(actors.ProcessPID(pid.Address))
	masters := a.Master.Monitor(actors.ProcessPID(pid.Address))
	b.Kill(1, killedBy9)
	for _, mon := range []*actors.Monitor{m, proc, masters} {
		if r := next(t, mon.C).Reason; r != killedBy9 {
			t.Errorf("Down: %v, want %v", r, killedBy9)
		}
	}
	if down, ok := errors.AsType[*actors.DownError](next(t, held)); !ok || down.Reason != killedBy9 {
		t.Errorf("the ask: %v", down)
	}
	for _, from := range []*actors.System{from, a.Child(2), a.Master} { // the others have not heard of it
		if r := next(t, from.Monitor(actors.ProcessPID(pid.Address)).C).Reason; r != killedBy9 {
			t.Errorf("later, from %s: %v, want %v", from.Address(), r, killedBy9)
		}
	}
	nobody := actor.NewPID("bootb.99", "x")
	_, err := from.Ask(testContext(t), nobody, "x")
	wantErr(t, err, actors.ErrNoActor)
}

// TestUnreachable: a lost trunk ends what waits with ErrUnreachable, for actors and processes;
// after healing the same PIDs work. A host that comes back with another boot has lost its
// processes.
func TestUnreachable(t *testing.T) {
	c := newCluster(t, 1, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	spawn(t, b.Child(1), "echo", echo)
	pid := actor.NewPID(b.Child(1).Address(), "echo")
	for name, from := range map[string]*actors.System{"child": a.Child(1), "master": a.Master} {
		for range 5 {
			settled(t, name+": no trunk", func() bool { v, err := from.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
			held := askHeld(t, testContext(t), from, pid)
			m, proc := from.Monitor(pid), from.Monitor(actors.ProcessPID(pid.Address))
			ask(t, from, pid, "after the monitors")
			c.lose()
			err := next(t, held)
			wantErr(t, err, actors.ErrUnreachable)
			wantErr(t, err, actors.ErrDown)
			wantErr(t, next(t, m.C).Reason.Err(), actors.ErrUnreachable)
			wantErr(t, next(t, proc.C).Reason.Err(), actors.ErrUnreachable)
			_, err = from.Ask(testContext(t), pid, "x")
			wantErr(t, err, actors.ErrUnreachable)
			if err := from.Send(testContext(t), pid, "x"); !errors.Is(err, actors.ErrUnreachable) {
				t.Errorf("Send: %v", err)
			}
			c.heal("boota", "bootb")
		}
	}
	from := a.Child(1)
	settled(t, "no trunk", func() bool { v, err := from.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
	proc := from.Monitor(actors.ProcessPID(pid.Address))
	c.lose()
	wantErr(t, next(t, proc.C).Reason.Err(), actors.ErrUnreachable)
	spawn(t, c.start("b", "bootb2", 1).Child(1), "echo", echo)
	settled(t, "the former boot is lost", func() bool {
		_, err := from.Ask(testContext(t), pid, "x")
		return errors.Is(err, actors.ErrDown) && !errors.Is(err, actors.ErrUnreachable)
	})
	settled(t, "the new boot answers", func() bool {
		v, err := from.Ask(testContext(t), actor.NewPID("bootb2.2", "echo"), "x")
		return err == nil && v == "x"
	})
}

// TestGatewayEnds: the death of a gateway makes all other hosts unreachable, on both sides, until
// there is another one.
func TestGatewayEnds(t *testing.T) {
	c := newCluster(t, 1, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	spawn(t, b.Child(1), "echo", echo)
	spawn(t, a.Child(1), "echo", echo)
	from, pid := a.Child(1), actor.NewPID(b.Child(1).Address(), "echo")
	for range 3 {
		settled(t, "no trunk", func() bool { v, err := from.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
		proc := from.Monitor(actors.ProcessPID(pid.Address))
		back := b.Child(1).Monitor(actors.ProcessPID(from.Address()))
		a.Kill(0, killedBy9)
		wantErr(t, next(t, proc.C).Reason.Err(), actors.ErrUnreachable)
		c.lose()
		wantErr(t, next(t, back.C).Reason.Err(), actors.ErrUnreachable)
		a.startGateway()
		c.heal("boota", "bootb")
	}
}

// TestLookupAt: a name of another host is found, follows its holder, and is unreachable without a
// trunk; the PID means the same on its own host.
func TestLookupAt(t *testing.T) {
	c := newCluster(t, 2, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	var holders []*actor.PID
	for i := range 2 {
		holders = append(holders, spawn(t, b.Child(i+1), "holder", receive(func(ctx actor.Context) { ctx.Respond(i) })))
	}
	froms := []*actors.System{a.Child(1), a.Child(2), a.Master, b.Child(1), b.Master}
	for n := range 10 {
		if err := b.Child(n%2+1).Reregister(testContext(t), "lead", holders[n%2]); err != nil {
			t.Fatal(err)
		}
		for _, from := range froms {
			settled(t, from.Address()+" reaches the holder", func() bool {
				v, err := from.Ask(testContext(t), from.LookupAt("b", "lead"), "who")
				if err != nil && !errors.Is(err, actors.ErrUnreachable) {
					t.Fatal(err)
				}
				return v == n%2
			})
		}
	}
	for _, from := range froms {
		if v := ask(t, from, from.LookupAt("b", "test/2/holder"), "who"); v != 1 {
			t.Errorf("got %v", v)
		}
		_, err := from.Ask(testContext(t), from.LookupAt("b", "nobody"), "x")
		wantErr(t, err, actors.ErrNoActor)
		_, err = from.Ask(testContext(t), from.LookupAt("c", "lead"), "x")
		wantErr(t, err, actors.ErrUnreachable)
		if err := from.Register(testContext(t), "@b/mine", from.Process()); !errors.Is(err, actors.ErrName) {
			t.Errorf("it registers a name of another host: %v", err)
		}
	}
	m := a.Child(1).Monitor(a.Child(1).LookupAt("b", "lead"))
	c.lose()
	wantErr(t, next(t, m.C).Reason.Err(), actors.ErrUnreachable)
	for _, from := range froms[:3] {
		_, err := from.Ask(testContext(t), from.LookupAt("b", "lead"), "x")
		wantErr(t, err, actors.ErrUnreachable)
	}
	c.heal("boota", "bootb")
	settled(t, "it is found again", func() bool {
		_, err := froms[0].Ask(testContext(t), froms[0].LookupAt("b", "lead"), "x")
		return err == nil
	})
}

// TestHandlesStay: a message with handles does not leave its host, and the handles stay its
// sender's.
func TestHandlesStay(t *testing.T) {
	c := newCluster(t, 1, "a", "b")
	from := c.at("boota").Child(1)
	spawn(t, c.at("bootb").Child(1), "echo", echo)
	pid := actor.NewPID(c.at("bootb").Child(1).Address(), "echo")
	settled(t, "no trunk", func() bool { v, err := from.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
	_, server := tcpPair(t)
	msg := &connMessage{Conn: server}
	if err := from.Send(testContext(t), pid, msg); !errors.Is(err, actors.ErrForeign) {
		t.Errorf("Send: %v", err)
	}
	if _, err := from.Ask(testContext(t), pid, msg); !errors.Is(err, actors.ErrForeign) {
		t.Errorf("Ask: %v", err)
	}
	if _, err := server.Write([]byte("x")); err != nil || msg.Conn != server {
		t.Errorf("the connection is not the sender's: %v", err)
	}
	if v := ask(t, from, pid, "after it"); v != "after it" {
		t.Errorf("got %v", v)
	}
}

// TestReplaceOnAHost: when the program of a master is replaced, the lanes of its children to
// another host go on, and the new master tells of an end there; its own lanes are in doubt, and
// made anew.
func TestReplaceOnAHost(t *testing.T) {
	c := newCluster(t, 1, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	spawn(t, b.Child(1), "echo", echo)
	spawn(t, a.Child(1), "echo", echo)
	from, pid := a.Child(1), actor.NewPID(b.Child(1).Address(), "echo")
	for _, s := range []*actors.System{from, a.Master} {
		settled(t, "no trunk", func() bool { v, err := s.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
	}
	named := from.LookupAt("b", "test/1/echo")
	ask(t, from, named, "by name")
	proc := from.Monitor(actors.ProcessPID(pid.Address))
	masters := b.Child(1).Monitor(actors.ProcessPID(a.Master.Address()))
	held := askHeld(t, testContext(t), a.Master, pid)
	state := a.mustSuspend()
	wantErr(t, next(t, held), actors.ErrLane)
	a.replace(state, nil)
	if v := ask(t, from, pid, "as before"); v != "as before" {
		t.Errorf("got %v", v)
	}
	for _, s := range []*actors.System{a.Master, from} {
		settled(t, "the new master has no lane", func() bool { v, err := s.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
		settled(t, "the name is not found", func() bool { v, err := s.Ask(testContext(t), named, "x"); return err == nil && v == "x" })
	}
	wantNoDown(t, proc)
	wantNoDown(t, masters)
	b.Kill(1, killedBy9)
	if r := next(t, proc.C).Reason; r != killedBy9 {
		t.Errorf("Down: %v, want %v", r, killedBy9)
	}
}

// TestLaneForgotten: of a lane to another host that has ended without a process nothing is kept,
// and whoever waits for the process hears of its end all the same.
func TestLaneForgotten(t *testing.T) {
	c := newCluster(t, 1, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	spawn(t, b.Child(1), "echo", echo)
	from, pid := a.Child(1), actor.NewPID(b.Child(1).Address(), "echo")
	settled(t, "no trunk", func() bool { v, err := from.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
	proc := from.Monitor(actors.ProcessPID(pid.Address))
	for range 3 {
		settled(t, "it does not answer", func() bool { v, err := from.Ask(testContext(t), pid, "x"); return err == nil && v == "x" })
		m := from.Monitor(pid)
		ask(t, from, pid, "x")
		a.breakLanes()
		wantErr(t, next(t, m.C).Reason.Err(), actors.ErrLane)
	}
	settled(t, "an ended lane is remembered", func() bool { return from.LostLanes() == 0 })
	wantNoDown(t, proc)
	b.Kill(1, killedBy9)
	if r := next(t, proc.C).Reason; r != killedBy9 {
		t.Errorf("Down: %v, want %v", r, killedBy9)
	}
}

// TestBothAskAcrossHosts: whoever asks first, and how many at once: each ask is answered.
func TestBothAskAcrossHosts(t *testing.T) {
	for range 4 {
		c := newCluster(t, 2, "a", "b")
		a, b := c.at("boota"), c.at("bootb")
		end := make(chan error, 16)
		for i := 1; i <= 2; i++ {
			spawn(t, a.Child(i), "echo", echo)
			spawn(t, b.Child(i), "echo", echo)
		}
		for _, s := range []*actors.System{a.Master, b.Master} { // both trunks are known
			other := map[*actors.System]string{a.Master: "b", b.Master: "a"}[s]
			settled(t, "no trunk", func() bool {
				_, err := s.Ask(testContext(t), s.LookupAt(other, "nobody"), "x")
				return errors.Is(err, actors.ErrNoActor)
			})
		}
		for i := 1; i <= 2; i++ {
			for j := 1; j <= 2; j++ {
				for _, way := range [][2]*actors.System{{a.Child(i), b.Child(j)}, {b.Child(j), a.Child(i)}} {
					for range 2 {
						go func() {
							_, err := way[0].Ask(testContext(t), actor.NewPID(way[1].Address(), "echo"), "x")
							end <- err
						}()
					}
				}
			}
		}
		for range cap(end) {
			if err := next(t, end); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestLookupCluster: a name of the cluster is who the gateway says, from every process, as the same
// PID on every host; it follows its holder, ends with it, and is unavailable while nothing is
// known.
func TestLookupCluster(t *testing.T) {
	c := newCluster(t, 2, "a", "b")
	a, b := c.at("boota"), c.at("bootb")
	froms := []*actors.System{a.Child(1), a.Child(2), a.Master, b.Child(1), b.Master}
	lead := actors.LookupCluster("lead")
	say := func(pid *actor.PID) { a.to.Holder("lead", pid); b.to.Holder("lead", pid) }
	fails := func(want error) {
		t.Helper()
		for _, from := range froms {
			settled(t, from.Address()+": "+want.Error(), func() bool {
				_, err := from.Ask(testContext(t), lead, "who")
				return errors.Is(err, want)
			})
		}
	}
	fails(actors.ErrUnavailable)
	for round := range 2 {
		a.to.Holders(map[string]*actor.PID{})
		b.to.Holders(map[string]*actor.PID{"other": froms[0].Process()})
		fails(actors.ErrNoActor)
		for i, at := range []*testHost{a, b, a} {
			slot := i%2 + 1
			name := fmt.Sprint("lead-", round, i)
			pid := spawn(t, at.Child(slot), name, receive(func(ctx actor.Context) { ctx.Respond(name) }))
			if i == 0 {
				a.to.Holders(map[string]*actor.PID{"lead": pid})
				b.to.Holders(map[string]*actor.PID{"lead": pid})
			} else {
				say(pid)
			}
			for _, from := range froms {
				settled(t, from.Address()+" reaches "+name, func() bool {
					v, err := from.Ask(testContext(t), lead, "who")
					return err == nil && v == name
				})
				if w, err := from.Whereis(testContext(t), "@@/lead"); err != nil || !w.Equal(pid) {
					t.Errorf("%s: whereis: %v, %v", from.Address(), w, err)
				}
			}
			m := froms[0].Monitor(lead)
			if v := ask(t, froms[0], lead, "who"); v != name {
				t.Errorf("got %v", v)
			}
			if err := at.Child(slot).Stop(testContext(t), pid); err != nil {
				t.Fatal(err)
			}
			next(t, m.C)
			say(nil)
			fails(actors.ErrNoActor)
		}
		a.to.Holders(nil)
		b.to.Holders(nil)
		fails(actors.ErrUnavailable)
		say(froms[0].Process()) // nothing is known: it does not count
		fails(actors.ErrUnavailable)
	}
	for _, from := range froms {
		if err := from.Register(testContext(t), "@@/mine", from.Process()); !errors.Is(err, actors.ErrName) {
			t.Errorf("it registers a name of the cluster: %v", err)
		}
	}
}
