package actors_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// settled waits until f holds.
func settled(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

// Whoever asks first, and how many at once: one lane a pair.
func TestLaneOneAPair(t *testing.T) {
	for range 30 {
		tree := newTree(t, 3)
		for i := range 3 {
			spawn(t, tree.Child(i), "echo", echo)
		}
		var wg sync.WaitGroup
		for i := range 3 {
			for j := range 3 {
				for range 4 {
					wg.Go(func() {
						pid := actor.NewPID(tree.Child(j).Address(), "echo")
						if v, err := tree.Child(i).Ask(testContext(t), pid, i); err != nil || v != i {
							t.Errorf("%d asks %d: %v, %v", i, j, v, err)
						}
					})
				}
			}
		}
		wg.Wait()
		if n := tree.Master.Stats().Lanes; n != 3 {
			t.Fatalf("%d lanes in a tree of 3", n)
		}
		for i := range 3 {
			if st := tree.Child(i).Stats(); st.Lanes != 2 || st.Refused != 0 || st.Malformed != 0 {
				t.Fatalf("child %d: %+v", i, st)
			}
		}
		tree.Kill(1, killedBy9)
		for _, i := range []int{0, 2} {
			settled(t, "a lane outlives a process", func() bool { return tree.Child(i).Stats().Lanes == 1 })
		}
		if n := tree.Master.Stats().Lanes; n != 1 {
			t.Fatalf("%d lanes in a tree of 2", n)
		}
	}
}

// What is sent while the lane is being made arrives first, in order, whichever
// way it was sent: Send, an actor's Send, monitors, by PID or by name.
func TestLaneOrder(t *testing.T) {
	for range 20 {
		tree := newTree(t, 2)
		a, b := tree.Child(0), tree.Child(1)
		q := newProbe(t, b, "probe")
		pid := actor.NewPID(b.Address(), "probe")
		p := newProbe(t, a, "")
		const n = 200
		p.Do(func(ctx actor.Context) {
			for i := range n {
				switch i % 3 {
				case 0:
					ctx.Send(pid, i)
				case 1:
					if err := a.Send(t.Context(), pid, i); err != nil {
						t.Error(err)
					}
				case 2:
					ctx.Send(pid, &actor.MessageEnvelope{Message: i, Sender: ctx.Self()})
					a.Monitor(pid).Cancel()
				}
			}
		})
		for i := range n {
			if got := q.Next(); got.Message != i {
				t.Fatalf("got %v, want %d", got.Message, i)
			}
		}
		// A Monitor before the lane, and before the name is known, comes before what follows.
		tree.Start(2)
		c := tree.Child(2)
		name := c.Lookup("test/1/probe")
		m := c.Monitor(name)
		if err := c.Send(t.Context(), name, "after the monitor"); err != nil {
			t.Fatal(err)
		}
		if got := q.Next(); got.Message != "after the monitor" {
			t.Fatalf("got %v", got)
		}
		stop(t, b, q.PID)
		wantKind(t, next(t, m.C).Reason, supervisor.Shutdown)
	}
}

// A sibling is replaced again and again while it is asked, by PID and by name:
// every ask ends, with an answer or a typed error, and the last replacement answers.
func TestLaneToAReplacedWorker(t *testing.T) {
	tree := newTree(t, 2)
	a := tree.Child(0)
	spawn(t, tree.Child(1), "echo", echo)
	stopAsking := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stopAsking:
					return
				default:
				}
				pid := a.Lookup("test/1/echo")
				if i%2 == 1 {
					if w, err := a.Whereis(testContext(t), "test/1/echo"); err == nil {
						pid = w
					}
				}
				v, err := a.Ask(testContext(t), pid, n)
				switch {
				case err == nil && v == n:
				case errors.Is(err, actors.ErrDown), errors.Is(err, actors.ErrNoActor):
				default:
					t.Errorf("ask %d: %v, %v", n, v, err)
					return
				}
			}
		})
	}
	for range 30 {
		proc := a.Monitor(a.Lookup("test/1"))
		tree.Kill(1, killedBy9)
		if d := next(t, proc.C); d.Reason.Kind != supervisor.Signaled && !errors.Is(d.Reason.Err(), actors.ErrNoActor) {
			t.Fatalf("Down %v", d.Reason)
		}
		spawn(t, tree.Start(1), "echo", echo)
		settled(t, "the replacement does not answer", func() bool {
			v, err := a.Ask(testContext(t), a.Lookup("test/1/echo"), "new")
			return err == nil && v == "new"
		})
	}
	close(stopAsking)
	wg.Wait()
	if st := a.Stats(); st.Lanes != 1 || st.Asks != 0 {
		t.Fatalf("left: %+v", st)
	}
}

// A system is shut down while lanes to it and from it are being made: nobody
// waits for it for ever.
func TestLaneStopWhileItIsMade(t *testing.T) {
	for range 30 {
		tree := newTree(t, 2)
		a, b := tree.Child(0), tree.Child(1)
		actors.SetLaneGrace(a, time.Millisecond)
		spawn(t, b, "echo", echo)
		end := make(chan error, 2)
		go func() {
			_, err := a.Ask(testContext(t), actor.NewPID(b.Address(), "echo"), "x")
			end <- err
		}()
		go func() { end <- b.Shutdown(testContext(t)) }()
		go func() {
			_, err := b.Ask(testContext(t), actor.NewPID(a.Address(), "echo"), "x")
			if err == nil {
				err = errors.New("an answer of nobody")
			}
			if errors.Is(err, actors.ErrClosed) || errors.Is(err, actors.ErrNoActor) || errors.Is(err, actors.ErrDown) {
				err = nil
			}
			end <- err
		}()
		for range 3 {
			if err := next(t, end); err != nil && !errors.Is(err, actors.ErrDown) && !errors.Is(err, actors.ErrNoActor) {
				t.Fatal(err)
			}
		}
		tree.Kill(1, killedBy9)
	}
}

// A channel between two live processes breaks: what was on it is told so, and the
// next message makes a new one.
func TestLaneBroken(t *testing.T) {
	for _, side := range []string{"asker", "asked"} {
		t.Run(side, func(t *testing.T) {
			tree := newTree(t, 2)
			a, b := tree.Child(0), tree.Child(1)
			actors.SetLaneGrace(a, time.Millisecond)
			actors.SetLaneGrace(b, time.Millisecond)
			spawn(t, b, "echo", echo)
			pid := actor.NewPID(b.Address(), "echo")
			for range 5 {
				held := askHeld(t, testContext(t), a, pid)
				m, proc := a.Monitor(pid), a.Monitor(actors.ProcessPID(b.Address()))
				ask(t, a, pid, "after the monitors")
				if side == "asker" {
					actors.BreakLane(a, b.Address())
				} else {
					actors.BreakLane(b, a.Address())
				}
				err := next(t, held)
				wantErr(t, err, actors.ErrLane)
				wantErr(t, err, actors.ErrDown)
				wantErr(t, next(t, m.C).Reason.Err(), actors.ErrLane)
				settled(t, "no new lane", func() bool {
					v, err := a.Ask(testContext(t), pid, "again")
					return err == nil && v == "again"
				})
				select {
				case d := <-proc.C:
					t.Fatalf("the process lives: %v", d.Reason)
				default:
				}
				proc.Cancel()
			}
			if n := tree.Master.Stats().Lanes; n != 1 {
				t.Fatalf("%d lanes", n)
			}
			proc := a.Monitor(actors.ProcessPID(b.Address()))
			tree.Kill(1, killedBy9)
			wantKind(t, next(t, proc.C).Reason, supervisor.Signaled)
		})
	}
}

func TestLaneToNobody(t *testing.T) {
	tree := newTree(t, 2)
	a := tree.Child(0)
	ctx := testContext(t)
	for _, pid := range []*actor.PID{actor.NewPID("99", "x"), actors.ProcessPID("99"), actor.NewPID("nonhost", "x"), actor.NewPID("a@b", "x")} {
		_, err := a.Ask(ctx, pid, "x")
		wantErr(t, err, actors.ErrNoActor)
		wantErr(t, next(t, a.Monitor(pid).C).Reason.Err(), actors.ErrNoActor)
		if err := a.Stop(ctx, pid); err != nil {
			t.Fatal(err)
		}
		if err := a.Send(ctx, pid, "x"); !errors.Is(err, actors.ErrNoActor) {
			t.Fatal(err)
		}
	}
	if st := a.Stats(); st.Lanes != 0 || st.Asks != 0 || st.Monitors != 0 {
		t.Fatalf("left: %+v", st)
	}
}

// TestMonitorOfAnEndedProcess: each way to reach a process that has ended gives its exit reason,
// also from a process that was started later and has never heard of it, until 1024 others have
// ended.
func TestMonitorOfAnEndedProcess(t *testing.T) {
	tree := newTree(t, 2)
	gone := tree.Child(1).Address()
	tree.Kill(1, killedBy9)
	tree.Kill(0, killedBy9)
	for _, from := range []*actors.System{tree.Master, tree.Start(0), tree.Start(1)} {
		for _, pid := range []*actor.PID{actors.ProcessPID(gone), actor.NewPID(gone, "x")} {
			if r := next(t, from.Monitor(pid).C).Reason; r != killedBy9 {
				t.Errorf("%s monitors %v: %v, want %v", from.Address(), pid, r, killedBy9)
			}
		}
	}
	for _, ask := range []bool{true, false} { // the first that they ask for is an actor
		tree.Kill(0, killedBy9)
		from, pid := tree.Start(0), actor.NewPID(gone, "x")
		var err error
		if ask {
			_, err = from.Ask(testContext(t), pid, "x")
		} else {
			d := next(t, from.Monitor(pid).C)
			err = &actors.DownError{Reason: d.Reason}
		}
		if down, ok := errors.AsType[*actors.DownError](err); !ok || down.Reason != killedBy9 {
			t.Errorf("an actor of the process: %v, want %v", err, killedBy9)
		}
	}
}

// A slow actor slows its senders in a sibling: they wait, they do not fail, and
// nobody's memory fills.
func TestLaneBackPressure(t *testing.T) {
	tree := newTree(t, 3)
	pid, got, release := bounded(t, tree.Child(1), actors.Wait)
	spawn(t, tree.Child(1), "other", echo)
	a := tree.Child(0)
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan int, 1)
	go func() {
		n := 0
		for a.Send(ctx, pid, 7) == nil {
			n++
		}
		sent <- n
	}()
	settled(t, "the mailbox is full", func() bool { return actors.Queue(tree.Child(1), pid) == 2 })
	// Another sibling's messages have a lane of their own.
	if v := ask(t, tree.Child(2), actor.NewPID(tree.Child(1).Address(), "other"), "meanwhile"); v != "meanwhile" {
		t.Fatalf("got %v", v)
	}
	select {
	case n := <-sent:
		t.Fatalf("sender failed after %d", n)
	default:
	}
	close(release)
	wantInts(t, got, 1, 2)
	for range 5000 {
		wantInts(t, got, 7)
	}
	cancel()
	allArrive(t, got, sent, 5000)
}

// A change of a name is over when all who use it know: whatever is sent after it
// reaches the new holder, from any process.
func TestMovedNamesAreKnownEverywhere(t *testing.T) {
	tree := newTree(t, 4)
	ctx := testContext(t)
	var pids []*actor.PID
	for i := range 4 {
		pids = append(pids, spawn(t, tree.Child(i), "holder", receive(func(ctx actor.Context) { ctx.Respond(i) })))
	}
	for n := range 40 {
		i := n % 4
		if err := tree.Child(i).Reregister(ctx, "lead", pids[i]); err != nil {
			t.Fatal(err)
		}
		for j := range 4 {
			if v := ask(t, tree.Child(j), tree.Child(j).Lookup("lead"), "who"); v != i {
				t.Fatalf("round %d: child %d reached %v", n, j, v)
			}
		}
	}
	if err := tree.Child(3).Unregister(ctx, "lead", pids[3]); err != nil {
		t.Fatal(err)
	}
	for j := range 4 {
		_, err := tree.Child(j).Ask(ctx, tree.Child(j).Lookup("lead"), "who")
		wantErr(t, err, actors.ErrNoActor)
	}
	// A child that does not answer holds up nobody for long, one that dies nobody at all.
	if err := tree.Child(3).Register(ctx, "lead", pids[3]); err != nil {
		t.Fatal(err)
	}
	for j := range 4 {
		ask(t, tree.Child(j), tree.Child(j).Lookup("lead"), "who")
	}
	done := make(chan error, 1)
	go func() { done <- tree.Child(3).Unregister(ctx, "lead", pids[3]) }()
	tree.Kill(0, killedBy9)
	if err := next(t, done); err != nil {
		t.Fatal(err)
	}
}

func TestGroup(t *testing.T) {
	tree := newTree(t, 4)
	got := make(chan string, 100)
	start := func(i int) {
		spawn(t, tree.Child(i), "cache", receive(func(ctx actor.Context) {
			if ctx.Sender() != nil {
				ctx.Respond(fmt.Sprint("test/", i))
				return
			}
			got <- fmt.Sprint(i, " ", ctx.Message())
		}))
	}
	for i := range 4 {
		start(i)
	}
	ctx := testContext(t)
	systems := []*actors.System{tree.Master, tree.Child(0), tree.Child(1)}
	for _, s := range systems {
		members, err := s.Group("test", "cache").Members(ctx)
		if err != nil || len(members) != 4 {
			t.Fatalf("members %v: %v", members, err)
		}
		for _, pid := range members {
			if err := s.Send(ctx, pid, "all"); err != nil {
				t.Fatal(err)
			}
		}
		seen := map[string]bool{}
		for range 4 {
			seen[next(t, got)] = true
		}
		if len(seen) != 4 || !seen["3 all"] {
			t.Fatalf("got %v", seen)
		}
	}
	// All agree on who has a key, the shares are even, and when one goes only its keys move.
	const keys = 4000
	owner := make(map[string]string)
	share := make(map[string]int)
	for k := range keys {
		key := fmt.Sprint("key ", k)
		for _, s := range systems {
			pid := first(t, s, key)
			if owner[key] == "" {
				owner[key] = pid.Id
			} else if owner[key] != pid.Id {
				t.Fatalf("%q is %s's and %s's", key, owner[key], pid.Id)
			}
		}
		share[owner[key]]++
	}
	for who, n := range share {
		if n < keys/4*8/10 || n > keys/4*12/10 {
			t.Errorf("%s has %d of %d keys", who, n, keys)
		}
	}
	g := tree.Child(0).Group("test", "cache")
	if pid := first(t, tree.Child(0), "key 1"); ask(t, tree.Child(0), pid, "who") != owner["key 1"][:len("test/0")] {
		t.Error("an ask reached another")
	}
	second := make(map[string]string)
	for key := range owner {
		rank, err := g.Rank(ctx, key)
		if err != nil || len(rank) != 4 {
			t.Fatalf("rank %v, %v", rank, err)
		}
		second[key] = rank[1].Id
	}
	mon := tree.Child(0).Monitor(tree.Child(0).Lookup("test/3"))
	tree.Kill(3, killedBy9)
	next(t, mon.C)
	for key, was := range owner {
		pid := first(t, tree.Child(0), key)
		want := was
		if was == "test/3/cache" {
			want = second[key]
		}
		if pid.Id != want {
			t.Fatalf("%q moved from %s to %s, want %s", key, was, pid.Id, want)
		}
	}
	tree.Start(3)
	start(3)
	for key, was := range owner {
		if pid := first(t, tree.Child(0), key); pid.Id != was {
			t.Fatalf("%q is not back: %v", key, pid)
		}
	}
	if list, err := tree.Child(0).Group("nobody", "x").Rank(ctx, "k"); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	if list, err := tree.Child(0).Group("nobody", "x").Members(ctx); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
}

// first returns the first in the rank for a key of the group that TestGroup makes.
func first(t *testing.T, s *actors.System, key string) *actor.PID {
	t.Helper()
	rank, err := s.Group("test", "cache").Rank(testContext(t), key)
	if err != nil || len(rank) == 0 {
		t.Fatalf("rank %v: %v", rank, err)
	}
	return rank[0]
}

// Who passes an ask on to another process keeps nothing of it, and fails it no
// more by ending.
func TestLaneForwardedAskLeavesNothing(t *testing.T) {
	tree := newTree(t, 3)
	a, b, c := tree.Child(0), tree.Child(1), tree.Child(2)
	spawn(t, c, "echo", echo)
	relay := spawn(t, b, "relay", receive(func(ctx actor.Context) { ctx.Forward(actor.NewPID(c.Address(), "echo")) }))
	for i := range 100 {
		if v := ask(t, a, relay, i); v != i {
			t.Fatalf("answer %v, want %d", v, i)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	end := askHeld(t, ctx, a, relay)
	settled(t, "an ask that was passed on is kept", func() bool { return actors.Inbound(b) == 0 })
	stop(t, b, relay)
	cancel()
	wantErr(t, next(t, end), context.Canceled)
}

// The master can not make a lane that both ask for: both hear it, and the next is made.
func TestLaneFailsForBoth(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	spawn(t, a, "echo", echo)
	spawn(t, b, "echo", echo)
	making, asked := make(chan struct{}), make(chan struct{})
	var once sync.Once
	actors.FailLanes(tree.Master, func() (err error) {
		once.Do(func() {
			close(making)
			<-asked
			err = errors.New("too many open files")
		})
		return err
	})
	end := make(chan error, 2)
	from := func(s, to *actors.System) {
		_, err := s.Ask(testContext(t), actor.NewPID(to.Address(), "echo"), 1)
		end <- err
	}
	go from(a, b)
	next(t, making)
	go from(b, a)
	settled(t, "a child that does not ask", func() bool { return actors.HasLink(b, a.Address()) })
	if _, err := b.Whereis(testContext(t), "test/0"); err != nil { // after it, in order
		t.Fatal(err)
	}
	close(asked)
	for range 2 {
		wantErr(t, next(t, end), actors.ErrLane)
	}
	if v := ask(t, b, actor.NewPID(a.Address(), "echo"), 2); v != 2 {
		t.Fatal(v)
	}
}

// A monitor that finds the lane lost is told that, of the actor; of the process,
// which lives, it is told nothing until that ends.
func TestLaneLostUnderAMonitor(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	if _, err := a.Whereis(testContext(t), "test/1"); err != nil { // whoever has lost a lane has asked for it
		t.Fatal(err)
	}
	actors.LoseLane(a, b.Address(), actors.ErrLane)
	process := a.Monitor(actors.ProcessPID(b.Address()))
	down := next(t, a.Monitor(actor.NewPID(b.Address(), "echo")).C)
	if !errors.Is(down.Reason.Err(), actors.ErrLane) {
		t.Errorf("reason %v, want one that is %v", down.Reason, actors.ErrLane)
	}
	select {
	case d := <-process.C:
		t.Errorf("a process that lives: %v", d)
	default:
	}
	tree.Kill(1, killedBy9)
	if d := next(t, process.C); d.Reason.Signal != 9 {
		t.Errorf("reason %v, want %v", d.Reason, killedBy9)
	}
}

// What a child says it has lost is not believed, and descriptors do not pile up
// for one that does not read.
func TestLaneOfAChildThatLies(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	actors.WantLane(a, b.Address(), 1<<40)
	settled(t, "a number that was never given", func() bool { return tree.Master.Stats().Malformed == 1 })
	if n := tree.Master.Stats().Lanes; n != 0 {
		t.Errorf("%d lanes", n)
	}
	empty := actors.Fill(tree.Master, b.Address(), actors.MaxGrants)
	defer empty()
	actors.WantLane(a, b.Address(), 0)
	_, err := a.Ask(testContext(t), actor.NewPID(b.Address(), "echo"), 1)
	wantErr(t, err, actors.ErrLane)
	wantErr(t, err, actors.ErrBusy)
}

// keeper is the channel to a child that takes what it is sent, and does nothing.
type keeper struct {
	mu      sync.Mutex
	handles []*fdipc.Handle
	got     chan struct{} // closed with the first handle
}

func (k *keeper) TrySend(f *fdipc.Frame) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(f.Handles) > 0 && len(k.handles) == 0 {
		close(k.got)
	}
	k.handles = append(k.handles, f.Handles...)
	return nil
}

func (k *keeper) Send(_ context.Context, f *fdipc.Frame) error { return k.TrySend(f) }

func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, h := range k.handles {
		h.Close()
	}
}

// The master dies when it has given one child its end of a lane, and the other end dies
// with it: what waits for the lane ends, in whichever order the two are heard of.
func TestLaneOfWhichTheMasterGaveOneEnd(t *testing.T) {
	for _, row := range []struct {
		name string
		die  func(a *actors.System, k *keeper)
	}{
		{"its end first", func(a *actors.System, k *keeper) { a.Detach("0", killedBy9); k.close() }},
		{"the lane's end first", func(a *actors.System, k *keeper) { k.close(); a.Detach("0", killedBy9) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			tree := newTree(t, 1)
			a, ctx := tree.Child(0), testContext(t)
			k := &keeper{got: make(chan struct{})}
			if err := tree.Master.Attach("77", 0, k); err != nil {
				t.Fatal(err)
			}
			pid := actor.NewPID("77", "echo")
			asked := make(chan error, 1)
			go func() {
				_, err := a.Ask(ctx, pid, "x")
				asked <- err
			}()
			m := a.Monitor(pid)
			next(t, k.got)
			settled(t, "the child has its end", func() bool { return a.Stats().Lanes == 1 })
			row.die(a, k)
			if err := next(t, asked); !errors.Is(err, actors.ErrDown) && !errors.Is(err, actors.ErrLane) {
				t.Errorf("the ask: %v", err)
			}
			next(t, m.C)
			if err := a.Send(ctx, pid, "x"); err == nil {
				t.Error("sent to nobody")
			}
			settled(t, "nothing is left", func() bool {
				st := a.Stats()
				return st.Lanes == 0 && st.Asks == 0 && st.Monitors == 0
			})
		})
	}
}
