package actors_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
)

// The known traps of protoactor-go v0.0.0-20240822202345, by file and line of
// that version. Each test shows that our functions do not lead into one.

// process_registry.go:56-58, 88-95: a PID copies the address when it is made, and one
// made too early resolves to the wrong process.
func TestTrap01AddressIsSetBeforeTheFirstSpawn(t *testing.T) {
	tree := newTree(t, 1)
	s := tree.Child(0)
	first := make(chan *actor.PID, 1)
	spawn(t, s, "", all(func(ctx actor.Context) {
		if _, ok := ctx.Message().(*actor.Started); ok {
			first <- ctx.Self()
		}
	}))
	if pid := next(t, first); pid.Address != s.Address() {
		t.Fatalf("address %q, want %q", pid.Address, s.Address())
	}
}

// pid.go:29-47: a PID keeps the Process that it resolved to for ever.
func TestTrap02KeptPIDReachesTheSameAddressAgain(t *testing.T) {
	tree := newTree(t, 1)
	p := newProbe(t, tree.Master, "")
	kept := tree.Master.Lookup("test/0/echo")
	for range 3 {
		spawn(t, tree.Child(0), "echo", echo)
		p.Do(func(ctx actor.Context) { ctx.Request(kept, "x") })
		if got := p.Next(); got.Message != "x" {
			t.Fatalf("got %v", got.Message)
		}
		tree.Kill(0, killedBy9)
		p.Do(func(ctx actor.Context) { ctx.Request(kept, "in the gap") })
		if _, ok := p.Next().Message.(*actor.DeadLetterResponse); !ok {
			t.Fatal("no DeadLetterResponse in the gap")
		}
		tree.Start(0)
	}
}

// strategist is an actor that is its children's strategy.
type strategist struct {
	actor.ReceiveFunc
	handle func(sup actor.Supervisor)
}

func (s strategist) HandleFailure(_ *actor.ActorSystem, sup actor.Supervisor, _ *actor.PID, _ *actor.RestartStatistics, _, _ any) {
	s.handle(sup)
}

// guardian.go:69-75: Escalate, or a look at the children, at the root ends the OS process.
func TestTrap03FailureOfAChildNeverReachesAGuardian(t *testing.T) {
	for name, row := range map[string]struct {
		handle func(actor.Supervisor)
		reason string
	}{
		"escalates": {func(sup actor.Supervisor) { sup.EscalateFailure("x", "y") }, "escalated: x"},
		"panics":    {func(actor.Supervisor) { panic("strategy") }, "strategy"},
		"all for one": {func(sup actor.Supervisor) {
			for _, c := range sup.Children() {
				sup.StopChildren(c)
			}
			panic("and then")
		}, "and then"},
	} {
		t.Run(name, func(t *testing.T) {
			s := local(t)
			pid, err := s.Spawn(testContext(t), "parent", func() actor.Actor {
				return strategist{
					ReceiveFunc: func(ctx actor.Context) {
						if ctx.Message() == "go" {
							child := ctx.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
								if ctx.Message() == "fail" {
									panic("child")
								}
							}))
							ctx.Send(child, "fail")
						}
					},
					handle: row.handle,
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			m := s.Monitor(pid)
			if err := s.Send(t.Context(), pid, "go"); err != nil {
				t.Fatal(err)
			}
			if d := next(t, m.C); !strings.Contains(d.Reason.String(), row.reason) {
				t.Fatalf("reason %v, want %q", d.Reason, row.reason)
			}
		})
	}
}

// actor_context.go:609-620, 682-702: a panic in Stopping or Stopped leaves a zombie,
// and a parent that waits for ever.
func TestTrap04PanicInStoppingOrStopped(t *testing.T) {
	panicAt := func(what string) actor.ReceiveFunc {
		return func(ctx actor.Context) {
			switch ctx.Message().(type) {
			case *actor.Stopping:
				if what != "Stopped" {
					panic("Stopping")
				}
			case *actor.Stopped:
				if what != "Stopping" {
					panic("Stopped")
				}
			}
		}
	}
	for _, what := range []string{"Stopping", "Stopped", "both"} {
		t.Run("actor/"+what, func(t *testing.T) {
			s := local(t)
			pid := spawn(t, s, "a", all(panicAt(what)))
			p := newProbe(t, s, "")
			p.Do(func(ctx actor.Context) { ctx.Watch(pid) })
			m := s.Monitor(pid)
			stop(t, s, pid)
			// As a process of Erlang whose terminate fails: that is its reason.
			first := strings.Replace(what, "both", "Stopping", 1)
			if d := next(t, m.C); d.Reason.Kind != supervisor.Panic || d.Reason.Value != first {
				t.Errorf("reason %v, want the panic in %s", d.Reason, first)
			}
			p.Terminated()
			spawn(t, s, "a", echo) // the name is free
		})
		t.Run("its child/"+what, func(t *testing.T) {
			s := local(t)
			pid := spawn(t, s, "parent", all(func(ctx actor.Context) {
				if _, ok := ctx.Message().(*actor.Started); ok {
					ctx.Spawn(actor.PropsFromFunc(panicAt(what)))
				}
			}))
			stop(t, s, pid)
		})
	}
	t.Run("after a panic", func(t *testing.T) {
		s := local(t)
		var calls []string
		pid := spawn(t, s, "a", all(func(ctx actor.Context) {
			switch ctx.Message().(type) {
			case *actor.Stopping:
				calls = append(calls, "Stopping")
				panic("second")
			case *actor.Stopped:
				calls = append(calls, "Stopped")
				panic("third")
			case string:
				panic("first")
			}
		}))
		m := s.Monitor(pid)
		if err := s.Send(t.Context(), pid, "x"); err != nil {
			t.Fatal(err)
		}
		if d := next(t, m.C); d.Reason.Value != "first" {
			t.Fatalf("reason %v, want the first panic", d.Reason)
		}
		if strings.Join(calls, " ") != "Stopping Stopped" {
			t.Fatalf("callbacks %v", calls)
		}
	})
}

// actor_context.go:470-474: messages that are queued when an actor stops vanish.
func TestTrap05QueuedMessagesBecomeDeadLetters(t *testing.T) {
	s := local(t)
	busy, release := make(chan struct{}), make(chan struct{})
	pid := spawn(t, s, "a", receive(func(ctx actor.Context) {
		if ctx.Message() == "block" {
			close(busy)
			<-release
		}
	}))
	_ = s.Send(t.Context(), pid, "block")
	next(t, busy)
	const n = 100
	for range n {
		_ = s.Send(t.Context(), pid, 1)
	}
	end := make(chan error, 1)
	go func() {
		_, err := s.Ask(testContext(t), pid, "queued too")
		end <- err
	}()
	p := newProbe(t, s, "")
	p.Do(func(ctx actor.Context) { ctx.Request(pid, "and with a sender") })
	for actors.Queue(s, pid) != n+2 {
		runtime.Gosched()
	}
	s.Actor().Root.Stop(pid)
	close(release)
	wantErr(t, next(t, end), actors.ErrDown)
	if m, ok := p.Next().Message.(*actor.DeadLetterResponse); !ok || !m.Target.Equal(pid) {
		t.Fatal("no DeadLetterResponse with its target")
	}
	if total, latest := s.DeadLetters(); total != n+2 || len(latest) != 100 {
		t.Fatalf("%d dead letters, %d kept", total, len(latest))
	}
}

// mailbox.go:145-160: Terminated has no reason and overtakes what the dying actor sent.
func TestTrap06DownHasTheReasonAndComesLast(t *testing.T) {
	s := local(t)
	p := newProbe(t, s, "")
	pid := spawn(t, s, "a", receive(func(ctx actor.Context) {
		for i := range 100 {
			ctx.Send(p.PID, i)
		}
		actors.Exit(errors.New("said all"))
	}))
	p.Do(func(ctx actor.Context) { s.MonitorFrom(ctx, pid) })
	_ = s.Send(t.Context(), pid, "talk")
	for i := range 100 {
		if got := p.Next(); got.Message != i {
			t.Fatalf("message %d is %v", i, got.Message)
		}
	}
	if d := p.Next().Message.(*actors.Down); d.Reason.Cause == nil || d.Reason.Cause.Error() != "said all" {
		t.Fatalf("Down %v", d.Reason)
	}
}

// deadletter.go:34-36: an asker may get a DeadLetterResponse as an answer, without a target.
func TestTrap07AskGetsAnErrorAndNotADeadLetterResponse(t *testing.T) {
	s := local(t)
	relay := spawn(t, s, "relay", receive(func(ctx actor.Context) { ctx.Forward(actor.NewPID("0", "nobody")) }))
	for _, pid := range []*actor.PID{actor.NewPID("0", "nobody"), actor.NewPID("99", "x"), s.Lookup("nobody"), relay} {
		v, err := s.Ask(testContext(t), pid, "x")
		wantErr(t, err, actors.ErrNoActor)
		if v != nil {
			t.Fatalf("value %v", v)
		}
	}
}

// props.go:57-63, actor_context.go:531-533: Spawn returns before Started; a producer that
// panics does so in the caller.
func TestTrap08SpawnReturnsAfterStarted(t *testing.T) {
	s := local(t)
	started := false // no lock: Spawn orders it
	spawn(t, s, "a", all(func(ctx actor.Context) {
		if _, ok := ctx.Message().(*actor.Started); ok {
			started = true
		}
	}))
	if !started {
		t.Fatal("Started was not handled")
	}
	if _, err := s.Spawn(testContext(t), "b", func() actor.Actor { panic("producer") }); err == nil {
		t.Fatal("no error of the producer")
	}
}

// future.go:125, 161, 212: a late reply races with the timeout; of several waiters one is released.
func TestTrap09AnswersRaceWithTheEndOfTheContext(t *testing.T) {
	tree := newTree(t, 1)
	spawn(t, tree.Child(0), "echo", echo)
	pid := tree.Master.Lookup("test/0/echo")
	var wg sync.WaitGroup
	var answered, ended atomic.Int64
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				ctx, cancel := context.WithCancel(testContext(t))
				if i%2 == 0 {
					go cancel()
				}
				v, err := tree.Master.Ask(ctx, pid, i)
				switch {
				case err == nil && v == i:
					answered.Add(1)
				case errors.Is(err, context.Canceled):
					ended.Add(1)
				default:
					t.Errorf("%v, %v", v, err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if n := tree.Master.Stats().Asks; n != 0 || answered.Load() < 200 {
		t.Fatalf("%d asks left, %d answered", n, answered.Load())
	}
	ctx, cancel := context.WithCancel(testContext(t))
	held := askHeld(t, ctx, tree.Master, pid)
	cancel()
	wantErr(t, next(t, held), context.Canceled)
	if n := tree.Master.Stats().Asks; n != 0 {
		t.Fatalf("%d asks left that nobody will answer", n)
	}
}

// root_context.go:204-226: the wait for a stop has a fixed bound of 10 s.
func TestTrap10StopWaitsUnderItsContext(t *testing.T) {
	const busy = 30 * time.Second
	for _, row := range []struct {
		name  string
		wait  time.Duration // of the context; 0: it has ended, negative: for ever
		takes time.Duration
		want  error
	}{
		{"none left", 0, 0, context.DeadlineExceeded},
		{"shorter than 10 s", 3 * time.Second, 3 * time.Second, context.DeadlineExceeded},
		{"longer than 10 s", 20 * time.Second, 20 * time.Second, context.DeadlineExceeded},
		{"longer than the actor", time.Minute, busy, nil},
		{"for ever", -1, busy, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := local(t)
				pid := spawn(t, s, "a", receive(func(actor.Context) { time.Sleep(busy) })) // of the bubble's time
				if err := s.Send(t.Context(), pid, "x"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // until it is busy
				ctx := t.Context()
				if row.wait >= 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, row.wait)
					defer cancel()
				}
				begun := time.Now()
				wantErr(t, s.Stop(ctx, pid), row.want)
				if took := time.Since(begun); took != row.takes {
					t.Errorf("it took %v, want %v", took, row.takes)
				}
				if err := s.Stop(t.Context(), pid); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// bounded.go:20: a full mailbox spins its senders, and an actor that sends to itself for ever.
func TestTrap11BoundedMailboxWaitsWithoutSpinning(t *testing.T) {
	s := local(t)
	done := make(chan int, 1)
	got := 0
	pid, err := s.SpawnSpec(testContext(t), actors.Spec{Name: "a", Bound: 2, Overflow: actors.Wait, New: receive(func(ctx actor.Context) {
		switch ctx.Message() {
		case "start":
			for range 100 {
				ctx.Send(ctx.Self(), "own")
			}
			ctx.Send(ctx.Self(), "done")
		case "own":
			got++
		case "done":
			done <- got
		}
	})})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), pid, "start"); err != nil {
		t.Fatal(err)
	}
	if n := next(t, done); n != 100 {
		t.Fatalf("%d of 100", n)
	}
}

// actor_system.go:56-58: Shutdown stops no actor; a second call panics.
func TestTrap12ShutdownStopsAllAndMayBeCalledTwice(t *testing.T) {
	s, err := actors.NewSystem(actors.Config{Address: "0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var stopped atomic.Int64
	for range 10 {
		spawn(t, s, "", all(func(ctx actor.Context) {
			if _, ok := ctx.Message().(*actor.Stopped); ok {
				stopped.Add(1)
			}
		}))
	}
	ctx := testContext(t)
	end := askHeld(t, ctx, s, spawn(t, s, "echo", echo))
	for range 2 {
		if err := s.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if stopped.Load() != 10 || s.Stats().Actors != 0 {
		t.Fatalf("%d stopped, %d left", stopped.Load(), s.Stats().Actors)
	}
	if err := next(t, end); err == nil {
		t.Fatal("an ask was answered")
	}
	_, err = s.Spawn(ctx, "late", echo)
	wantErr(t, err, actors.ErrClosed)
	_, err = s.Ask(ctx, actor.NewPID("0", "echo"), "x")
	wantErr(t, err, actors.ErrClosed)
	wantErr(t, s.Send(ctx, actor.NewPID("0", "echo"), "x"), actors.ErrClosed)
	wantErr(t, s.Register(ctx, "x", actor.NewPID("0", "echo")), actors.ErrClosed)
	wantErr(t, next(t, s.Monitor(actor.NewPID("0", "echo")).C).Reason.Err(), actors.ErrClosed)
}

// eventstream.go:101-109: handlers run on the publisher's goroutine, and so do their panics.
func TestTrap13HookOfDeadLettersMayPanic(t *testing.T) {
	s := newSystem(t, actors.Config{Address: "0", Hooks: actors.Hooks{DeadLetter: func(actors.DeadLetter) { panic("hook") }}})
	wantErr(t, s.Send(t.Context(), actor.NewPID("0", "nobody"), "x"), actors.ErrNoActor)
	p := newProbe(t, s, "")
	p.Do(func(ctx actor.Context) { ctx.Send(actor.NewPID("0", "nobody"), "x") })
	p.Do(func(actor.Context) {}) // it lives
}

// message_envelope.go:53-67: an envelope belongs to its sender; whoever changes it races.
func TestTrap14EnvelopesAreNotChanged(t *testing.T) {
	tree := newTree(t, 2)
	header := map[string]string{"traceparent": "00-01000000000000000000000000000000-0200000000000000-01", "k": "v"}
	env := &actor.MessageEnvelope{Header: header, Message: "x"}
	p := newProbe(t, tree.Master, "")
	q := []*probe{newProbe(t, tree.Child(0), "q"), newProbe(t, tree.Child(1), "q")}
	p.Do(func(ctx actor.Context) {
		for _, q := range q {
			ctx.Send(q.PID, env)
		}
	})
	for _, q := range q {
		if got := q.Next(); len(got.Header) != 2 {
			t.Fatalf("header %v", got.Header)
		}
	}
	if len(header) != 2 {
		t.Fatalf("the sender's header is %v", header)
	}
}

// props.go:149-155, propagator: Props are shared, and what is added to them adds up.
func TestTrap15PropsOfChildrenAreNotChanged(t *testing.T) {
	s := local(t)
	var runs atomic.Int64
	props := actor.PropsFromFunc(func(ctx actor.Context) {
		if ctx.Message() == "x" {
			ctx.Respond(runtime.Callers(0, make([]uintptr, 256)))
		}
	}, actor.WithReceiverMiddleware(func(next actor.ReceiverFunc) actor.ReceiverFunc {
		return func(ctx actor.ReceiverContext, m *actor.MessageEnvelope) {
			if m.Message == "x" {
				runs.Add(1)
			}
			next(ctx, m)
		}
	}))
	pid := spawn(t, s, "parent", receive(func(ctx actor.Context) { ctx.Respond(ctx.Spawn(props)) }))
	var first any
	for i := range 10 {
		child := ask(t, s, pid, "spawn").(*actor.PID)
		switch depth := ask(t, s, child, "x"); {
		case i == 0:
			first = depth
		case depth != first: // each layer around the actor is a call
			t.Fatalf("a message goes through %v calls to child %d, through %v to the first", depth, i, first)
		}
	}
	if n := runs.Load(); n != 10 {
		t.Fatalf("the middleware ran %d times for 10 messages", n)
	}
}

// props.go:27, 50-54: SpawnNamed on a taken name runs the producer and returns the other's PID.
func TestTrap16TakenName(t *testing.T) {
	s := local(t)
	spawn(t, s, "a", echo)
	pid, err := s.Spawn(testContext(t), "a", func() actor.Actor { t.Error("the producer ran"); return nil })
	wantErr(t, err, actors.ErrNameTaken)
	if pid != nil {
		t.Fatalf("PID %v", pid)
	}
}

// root_context.go:180: ids of protoactor's own.
func TestTrap17ReservedNames(t *testing.T) {
	s := local(t)
	for _, name := range []string{"$1", "future$1", "guardian$1", "ask$", "process$", "a@b", "a\nb", "a\x7fb", "\xff", strings.Repeat("x", 256)} {
		_, err := s.Spawn(testContext(t), name, echo)
		wantErr(t, err, actors.ErrName)
	}
	for _, name := range []string{"deadletter", "eventstream"} {
		_, err := s.Spawn(testContext(t), name, echo)
		wantErr(t, err, actors.ErrNameTaken)
	}
	for _, address := range []string{"", "a@b"} {
		_, err := actors.NewSystem(actors.Config{Address: address, SendWait: -1})
		wantErr(t, err, actors.ErrName)
	}
}

// pidset.go:95-97: Children is the live slice; half of the children are left when it is ranged
// over.
func TestTrap18KillStopsAllChildren(t *testing.T) {
	s := local(t)
	inst, err := actors.Child(s, "parent", all(func(ctx actor.Context) {
		switch ctx.Message().(type) {
		case *actor.Started:
			for range 7 {
				ctx.Spawn(actor.PropsFromFunc(func(actor.Context) {}))
			}
		case string:
			ctx.Respond(len(ctx.Children()))
		}
	})).Start(testContext(t), supervisor.Incarnation{})
	if err != nil {
		t.Fatal(err)
	}
	if n := ask(t, s, actor.NewPID("0", "parent"), "count"); n != 7 {
		t.Fatalf("%v children", n)
	}
	var down []*actors.Monitor
	for _, id := range actors.Foreign(s) {
		down = append(down, s.Monitor(actor.NewPID("0", id)))
	}
	if len(down) != 7 {
		t.Fatalf("%d children found", len(down))
	}
	inst.Kill()
	next(t, inst.Done())
	for _, m := range down {
		next(t, m.C)
	}
}

// Watch has no answer: what follows it must come after it.
func TestTrap19WatchIsOrderedBeforeWhatFollows(t *testing.T) {
	tree := newTree(t, 2)
	p := newProbe(t, tree.Child(0), "")
	pid := actor.NewPID(tree.Child(1).Address(), "a")
	for i := range 200 { // on two ways the later of them is the first now and then
		spawn(t, tree.Child(1), "a", receive(func(ctx actor.Context) { panic("at once") }))
		p.Do(func(ctx actor.Context) {
			ctx.Watch(pid)
			ctx.Send(pid, "x")
		})
		if m := p.Terminated(); m.Why != actor.TerminatedReason_Stopped {
			t.Fatalf("round %d: Why %v", i, m.Why)
		}
	}
}

// pid.go:57-63: two PIDs of one actor can differ in their RequestId. Ours never copy a PID by
// value (vet sees to that); Down names the PID as it was given.
func TestTrap20DownNamesThePIDAsGiven(t *testing.T) {
	tree := newTree(t, 1)
	spawn(t, tree.Child(0), "a", echo)
	given := &actor.PID{Address: tree.Child(0).Address(), Id: "a", RequestId: 7}
	m := tree.Master.Monitor(given)
	stop(t, tree.Master, given)
	if d := next(t, m.C); d.PID != given {
		t.Fatalf("Down of %v", d.PID)
	}
}

// A restart under the same name gives the same PID, so what was meant for the old incarnation would
// reach the new one.
func TestTrap21MonitorAndStopBindToTheIncarnation(t *testing.T) {
	tree := newTree(t, 1)
	s := tree.Child(0)
	stopped := make(chan chan struct{}, 1) // by who is in Stopped; closed when it has a successor
	mortal := all(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case *actor.Stopped:
			c := make(chan struct{})
			stopped <- c
			<-c
		case string:
			ctx.Respond(m)
		}
	})
	pid := spawn(t, s, "a", mortal)
	old := tree.Master.Monitor(pid)
	for i := range 20 {
		end := make(chan error, 1)
		go func() { end <- tree.Master.Stop(testContext(t), pid) }()
		succeeded := next(t, stopped)
		if i == 19 {
			mortal = echo
		}
		spawn(t, s, "a", mortal)
		close(succeeded)
		if err := next(t, end); err != nil { // leaves nothing behind that could reach the next
			t.Fatal(err)
		}
		if v := ask(t, tree.Master, pid, "x"); v != "x" {
			t.Fatal(v)
		}
	}
	next(t, old.C)
	fresh := tree.Master.Monitor(pid)
	old.Cancel()
	ask(t, tree.Master, pid, "after Cancel")
	select {
	case d := <-fresh.C:
		t.Fatalf("the new incarnation's monitor fired: %v", d)
	default:
	}
	stop(t, tree.Master, pid)
	next(t, fresh.C) // Cancel has left it alone
}

// deadletter.go:45: dead letters are logged with their contents.
func TestTrap22SecretsAreNotLogged(t *testing.T) {
	var out bytes.Buffer
	var mu sync.Mutex
	s := newSystem(t, actors.Config{Address: "0", Logger: slog.New(slog.NewTextHandler(&lockedWriter{mu: &mu, w: &out}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	type secret struct{ Password string }
	p := newProbe(t, s, "")
	p.Do(func(ctx actor.Context) {
		ctx.Send(actor.NewPID("0", "nobody"), secret{"hunter2"})
		ctx.Request(actor.NewPID("0", "nobody"), secret{"hunter2"})
	})
	p.Next()
	_ = s.Send(t.Context(), actor.NewPID("0", "nobody"), secret{"hunter2"})
	_, _ = s.Ask(t.Context(), actor.NewPID("9", "nobody"), secret{"hunter2"})
	if total, _ := s.DeadLetters(); total != 4 {
		t.Fatalf("%d dead letters, want 4", total)
	}
	mu.Lock()
	defer mu.Unlock()
	if strings.Contains(out.String(), "hunter2") {
		t.Fatalf("logged: %s", out.String())
	}
	if !strings.Contains(out.String(), "secret") {
		t.Fatal("the type is not logged")
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// actor_context.go:268-282: a continuation of ReenterAfter goes past the receiver, and so
// does its panic.
func TestPanicOutsideReceiveEndsTheActor(t *testing.T) {
	s := local(t)
	pid := spawn(t, s, "a", receive(func(ctx actor.Context) {
		f := actor.NewFuture(ctx.ActorSystem(), time.Minute)
		ctx.ReenterAfter(f, func(any, error) { panic("continuation") })
		ctx.Send(f.PID(), "done")
	}))
	m := s.Monitor(pid)
	_ = s.Send(t.Context(), pid, "x")
	if d := next(t, m.C); d.Reason.Value != "continuation" {
		t.Fatalf("reason %v", d.Reason)
	}
}

// Anybody can send an actor lifecycle messages as if they were its own.
func TestForgedLifecycleMessagesAreOrdinary(t *testing.T) {
	s := local(t)
	got := make(chan any, 10)
	pid := spawn(t, s, "a", all(func(ctx actor.Context) {
		if ctx.Message() == "end" {
			ctx.Respond("ok")
			return
		}
		got <- ctx.Message()
	}))
	for _, m := range []any{&actor.Started{}, &actor.Stopped{}, &actor.Stopping{}, &actor.Stop{}, &actor.Terminated{}} {
		_ = s.Send(t.Context(), pid, m)
	}
	ask(t, s, pid, "end")
	if len(got) != 6 {
		t.Fatalf("%d messages", len(got))
	}
}
