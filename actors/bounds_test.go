package actors_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
)

// bounded spawns an actor with room for two messages that is busy until release.
func bounded(t *testing.T, s *actors.System, o actors.Overflow) (pid *actor.PID, got chan int, release chan struct{}) {
	t.Helper()
	busy, release, got := make(chan struct{}), make(chan struct{}), make(chan int, 100)
	pid, err := s.SpawnSpec(testContext(t), actors.Spec{Name: "bounded", Bound: 2, Overflow: o, New: receive(func(ctx actor.Context) {
		switch n := ctx.Message().(int); n {
		case 0:
			close(busy)
			<-release
		default:
			got <- n
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := s.Send(t.Context(), pid, n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			next(t, busy)
		}
	}
	return pid, got, release
}

func wantInts(t *testing.T, got chan int, want ...int) {
	t.Helper()
	for _, n := range want {
		if g := next(t, got); g != n {
			t.Fatalf("got %d, want %d", g, n)
		}
	}
}

func TestOverflowWait(t *testing.T) {
	s := local(t)
	pid, got, release := bounded(t, s, actors.Wait)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, s.Send(ctx, pid, 3), context.Canceled)
	sent := make(chan error, 10)
	for n := range 10 {
		go func() { sent <- s.Send(testContext(t), pid, 10+n) }()
	}
	close(release)
	for range 10 {
		if err := next(t, sent); err != nil {
			t.Fatal(err)
		}
	}
	wantInts(t, got, 1, 2)
	for range 10 {
		next(t, got)
	}
	if total, _ := s.DeadLetters(); total != 1 {
		t.Fatalf("%d dead letters", total)
	}
}

func TestOverflowWaitEndsWithTheActor(t *testing.T) {
	s := local(t)
	pid, _, release := bounded(t, s, actors.Wait)
	sent := make(chan error, 1)
	go func() { sent <- s.Send(testContext(t), pid, 3) }()
	s.Actor().Root.Stop(pid)
	close(release)
	if err := next(t, sent); err == nil {
		t.Fatal("sent to an actor that has ended")
	}
}

func TestOverflowDropOldest(t *testing.T) {
	s := local(t)
	pid, got, release := bounded(t, s, actors.DropOldest)
	if err := s.Send(t.Context(), pid, 3); err != nil {
		t.Fatal(err)
	}
	close(release)
	wantInts(t, got, 2, 3)
	_, latest := s.DeadLetters()
	wantErr(t, latest[0].Err, actors.ErrFull)
}

func TestOverflowDropNewest(t *testing.T) {
	s := local(t)
	pid, got, release := bounded(t, s, actors.DropNewest)
	if err := s.Send(t.Context(), pid, 3); err != nil {
		t.Fatal(err)
	}
	_, err := s.Ask(testContext(t), pid, 3)
	wantErr(t, err, actors.ErrFull)
	close(release)
	wantInts(t, got, 1, 2)
}

func TestOverflowFail(t *testing.T) {
	s := local(t)
	pid, got, release := bounded(t, s, actors.Fail)
	wantErr(t, s.Send(t.Context(), pid, 3), actors.ErrFull)
	_, err := s.Ask(testContext(t), pid, 3)
	wantErr(t, err, actors.ErrFull)
	if !strings.Contains(err.Error(), ": at most 2 messages wait") {
		t.Errorf("without the bound: %v", err)
	}
	close(release)
	wantInts(t, got, 1, 2)
}

// A slow actor slows its senders in another process: what does not fit into
// its mailbox fills the channel, and then they wait.
func TestBackPressureCrossesProcesses(t *testing.T) {
	tree := newTree(t, 1)
	pid, got, release := bounded(t, tree.Child(0), actors.Wait)
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan int, 1)
	go func() {
		n := 0
		for tree.Master.Send(ctx, pid, 7) == nil {
			n++
		}
		sent <- n
	}()
	for range 200 { // it is stopped by the channel's bound, not by our memory
		select {
		case n := <-sent:
			t.Fatalf("sender failed after %d", n)
		default:
		}
	}
	close(release)
	wantInts(t, got, 1, 2)
	for range 1000 {
		wantInts(t, got, 7)
	}
	cancel()
	allArrive(t, got, sent, 1000)
}

// allArrive waits until as many have arrived as the sender says that it sent. Each has its
// time: how many there are depends on the machine.
func allArrive(t *testing.T, got, sent chan int, arrived int) {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for n := -1; n < 0 || arrived < n; {
		select {
		case n = <-sent:
		case <-got:
			arrived++
			timer.Reset(patience)
		case <-timer.C:
			t.Fatalf("%d of %d arrived", arrived, n)
		}
	}
}

// Under no policy is Poison what is dropped.
func TestOverflowPoison(t *testing.T) {
	for _, o := range []actors.Overflow{actors.Wait, actors.DropOldest, actors.DropNewest, actors.Fail} {
		for _, row := range []struct {
			name string
			send func(s *actors.System, pid *actor.PID)
		}{
			{"ours", func(s *actors.System, pid *actor.PID) {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				wantErr(t, s.Poison(ctx, pid), context.Canceled)
			}},
			{"protoactor's", func(s *actors.System, pid *actor.PID) { s.Actor().Root.Poison(pid) }},
		} {
			t.Run(o.String()+"/"+row.name, func(t *testing.T) {
				s := local(t)
				pid, _, release := bounded(t, s, o)
				m := s.Monitor(pid)
				row.send(s, pid)
				if o == actors.DropOldest {
					for n := range 5 { // push it out
						if err := s.Send(t.Context(), pid, 10+n); err != nil {
							t.Fatal(err)
						}
					}
				}
				close(release)
				wantKind(t, next(t, m.C).Reason, supervisor.Normal)
			})
		}
	}
}

// TestShareOfNames: a process that registers names without end gets ErrTooMany at its share;
// another registers its own, and a name that is given back makes room.
func TestShareOfNames(t *testing.T) {
	tree := newTree(t, 2)
	leaks, other := tree.Child(0), tree.Child(1)
	pid := newProbe(t, leaks, "holder").PID
	ctx := testContext(t)
	registered := 0
	var err error
	for ; err == nil; registered++ {
		err = leaks.Register(ctx, "leak-"+strconv.Itoa(registered), pid)
	}
	if !errors.Is(err, actors.ErrTooMany) || !strings.Contains(err.Error(), ": 16384 names") || registered-1 > 1<<14 {
		t.Fatalf("error %v after %d names", err, registered-1)
	}
	if err := other.Register(ctx, "own", newProbe(t, other, "other").PID); err != nil {
		t.Errorf("another process: %v", err)
	}
	if err := leaks.Unregister(ctx, "leak-0", pid); err != nil {
		t.Error(err)
	}
	if err := leaks.Register(ctx, "late", pid); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// TestLongMessageForNoActor: it is not decoded, as it might take far more memory than it has
// bytes: its dead letter does not know its type, and the ask fails as for a short one.
func TestLongMessageForNoActor(t *testing.T) {
	tree := newTree(t, 1)
	for size, typ := range map[int]string{1 << 10: "[]uint8", 1 << 20: "<nil>"} {
		_, err := tree.Child(0).Ask(testContext(t), actor.NewPID(tree.Master.Address(), "not-there"), make([]byte, size))
		if !errors.Is(err, actors.ErrNoActor) {
			t.Errorf("%d bytes: error %v, want ErrNoActor", size, err)
		}
		_, latest := tree.Master.DeadLetters()
		if !slices.ContainsFunc(latest, func(d actors.DeadLetter) bool { return d.Type == typ }) {
			t.Errorf("%d bytes: no dead letter of type %s in %v", size, typ, latest)
		}
	}
}
