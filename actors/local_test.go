package actors_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
)

func TestAskAnswersAndSendOrders(t *testing.T) {
	s := local(t)
	var got []int
	pid := spawn(t, s, "sum", receive(func(ctx actor.Context) {
		if n, ok := ctx.Message().(int); ok {
			got = append(got, n)
			return
		}
		ctx.Respond(got)
	}))
	for i := range 1000 {
		if err := s.Send(t.Context(), pid, i); err != nil {
			t.Fatal(err)
		}
	}
	list := ask(t, s, pid, "all").([]int)
	for i, n := range list {
		if i != n {
			t.Fatalf("message %d is %d", i, n)
		}
	}
	if len(list) != 1000 {
		t.Fatalf("%d messages", len(list))
	}
}

func TestProtoactorSystemIsMadeLazily(t *testing.T) {
	tree := newTree(t, 1)
	spawn(t, tree.Child(0), "echo", echo)
	// The master has no actor of its own: asking, monitoring and naming need none.
	if v := ask(t, tree.Master, tree.Master.Lookup("test/0/echo"), "hello"); v != "hello" {
		t.Fatalf("answer %v", v)
	}
	if actors.Made(tree.Master) {
		t.Fatal("protoactor's system was made in the master")
	}
}

func TestSpawnReturnsTheInitError(t *testing.T) {
	s := local(t)
	cause := errors.New("no database")
	for name, producer := range map[string]func() actor.Actor{
		"panic in New":     func() actor.Actor { panic(cause) },
		"panic in Started": all(func(actor.Context) { panic(cause) }),
		"Exit in Started":  all(func(actor.Context) { actors.Exit(cause) }),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Spawn(testContext(t), "a", producer)
			wantErr(t, err, cause)
			spawn(t, s, "b", echo) // the system lives
			if err := s.Stop(testContext(t), actor.NewPID("0", "b")); err != nil {
				t.Fatal(err)
			}
		})
	}
	_, err := s.Spawn(testContext(t), "nil", func() actor.Actor { return nil })
	if err == nil {
		t.Fatal("a nil actor was spawned")
	}
	_, err = s.Spawn(testContext(t), "exit", all(func(actor.Context) { actors.Exit(nil) }))
	if err == nil {
		t.Fatal("an actor that ended in Started was spawned")
	}
	if st := s.Stats(); st.Actors != 0 {
		t.Fatalf("%d actors left", st.Actors)
	}
}

func TestSpawnIsGivenUpWithItsContext(t *testing.T) {
	s := local(t)
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Spawn(ctx, "slow", all(func(ctx actor.Context) {
		if _, ok := ctx.Message().(*actor.Started); ok {
			cancel()
			<-release
		}
	}))
	wantErr(t, err, context.Canceled)
	if st := s.Stats(); st.Leaked != 1 {
		t.Fatalf("leaked %d, want 1", st.Leaked)
	}
	spawn(t, s, "slow", echo) // the name is free
	close(release)
	for s.Stats().Leaked != 0 {
		runtime.Gosched()
	}
	if v := ask(t, s, actor.NewPID("0", "slow"), "x"); v != "x" {
		t.Fatal("the new incarnation is gone")
	}
}

// Who was asked to end and fails before it has, has failed.
func TestReasonOfAFailureAfterStop(t *testing.T) {
	s := local(t)
	busy, release := make(chan struct{}), make(chan struct{})
	pid := spawn(t, s, "a", receive(func(actor.Context) {
		close(busy)
		<-release
		panic("in the last message")
	}))
	m := s.Monitor(pid)
	if err := s.Send(t.Context(), pid, 1); err != nil {
		t.Fatal(err)
	}
	next(t, busy)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, s.Stop(ctx, pid), context.Canceled) // the actor has been asked
	close(release)
	if d := next(t, m.C); d.Reason.Kind != supervisor.Panic || d.Reason.Value != "in the last message" {
		t.Fatalf("reason %v, want the panic", d.Reason)
	}
}

// An actor that is handling Stopped has a successor by its name already: what is sent from
// then on is the successor's, whoever has found the first one before.
func TestNameOfAnActorInStopped(t *testing.T) {
	tree := newTree(t, 1)
	s := tree.Child(0)
	stopped, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	pid := spawn(t, s, "a", all(func(ctx actor.Context) {
		switch ctx.Message().(type) {
		case *actor.Stopped:
			close(stopped)
			<-release
		case string:
			ctx.Respond("first")
		}
	}))
	from := map[string]*actors.System{"its own process": s, "another": tree.Master}
	for _, s := range from {
		ask(t, s, pid, "x") // finds it
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, s.Stop(ctx, pid), context.Canceled) // the actor has been asked
	next(t, stopped)
	spawn(t, s, "a", echo)
	for name, s := range from {
		if v, err := s.Ask(testContext(t), pid, "second"); v != "second" {
			t.Errorf("asked from %s: %v, %v", name, v, err)
		}
	}
}

func TestReasons(t *testing.T) {
	cause := errors.New("cause")
	rows := []struct {
		name string
		end  func(s *actors.System, pid *actor.PID)
		want supervisor.ReasonKind
	}{
		{"panic", func(s *actors.System, pid *actor.PID) { _ = s.Send(context.Background(), pid, "panic") }, supervisor.Panic},
		{"exit with an error", func(s *actors.System, pid *actor.PID) { _ = s.Send(context.Background(), pid, cause) }, supervisor.Error},
		{"exit", func(s *actors.System, pid *actor.PID) { _ = s.Send(context.Background(), pid, "exit") }, supervisor.Normal},
		{"exit with a reason", func(s *actors.System, pid *actor.PID) {
			_ = s.Send(context.Background(), pid, supervisor.Exit(supervisor.Reason{Kind: supervisor.ShutdownDetail, Detail: "x"}))
		}, supervisor.ShutdownDetail},
		{"goexit", func(s *actors.System, pid *actor.PID) { _ = s.Send(context.Background(), pid, "goexit") }, supervisor.Error},
		{"self stop", func(s *actors.System, pid *actor.PID) { _ = s.Send(context.Background(), pid, "stop") }, supervisor.Normal},
		{"Stop", func(s *actors.System, pid *actor.PID) { _ = s.Stop(context.Background(), pid) }, supervisor.Shutdown},
		{"Poison", func(s *actors.System, pid *actor.PID) { _ = s.Poison(context.Background(), pid) }, supervisor.Normal},
		{"protoactor's Stop", func(s *actors.System, pid *actor.PID) { s.Actor().Root.Stop(pid) }, supervisor.Normal},
		{"restart directive", func(s *actors.System, pid *actor.PID) {
			ref, _ := s.Actor().ProcessRegistry.GetLocal(pid.Id)
			ref.SendSystemMessage(pid, &actor.Restart{})
		}, supervisor.Error},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := local(t)
			pid := spawn(t, s, "a", receive(func(ctx actor.Context) {
				switch m := ctx.Message().(type) {
				case error:
					actors.Exit(m)
				case string:
					switch m {
					case "panic":
						panic("as told")
					case "exit":
						actors.Exit(nil)
					case "goexit":
						runtime.Goexit()
					case "stop":
						ctx.Stop(ctx.Self())
					}
				}
			}))
			m := s.Monitor(pid)
			row.end(s, pid)
			d := next(t, m.C)
			wantKind(t, d.Reason, row.want)
			if !d.PID.Equal(pid) {
				t.Errorf("Down of %v", d.PID)
			}
			select {
			case d := <-m.C:
				t.Fatalf("a second Down: %v", d)
			default:
			}
			_, err := s.Ask(testContext(t), pid, "x")
			wantErr(t, err, actors.ErrNoActor)
		})
	}
}

func TestAskFailsWhenTheActorEnds(t *testing.T) {
	s := local(t)
	pid := spawn(t, s, "a", echo)
	held := askHeld(t, testContext(t), s, pid)
	_, err := s.Ask(testContext(t), pid, "panic")
	wantErr(t, err, actors.ErrDown)
	var down *actors.DownError
	if !errors.As(err, &down) {
		t.Fatal("not a DownError")
	}
	wantKind(t, down.Reason, supervisor.Panic)
	wantErr(t, next(t, held), actors.ErrDown)
}

func TestChildUnderASupervisor(t *testing.T) {
	s := local(t)
	sup, err := supervisor.Start(testContext(t), supervisor.Spec{
		Name: "root",
		Children: []supervisor.ChildSpec{
			{ID: "echo", Start: actors.Child(s, "echo", echo)},
		},
	}, supervisor.Config{Logger: s.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	pid := actor.NewPID("0", "echo")
	for range 1 {
		m := s.Monitor(pid)
		if err := s.Send(t.Context(), pid, "panic"); err != nil {
			t.Fatal(err)
		}
		wantKind(t, next(t, m.C).Reason, supervisor.Panic)
		for {
			if v, err := s.Ask(testContext(t), pid, "back"); err == nil && v == "back" {
				break
			}
			runtime.Gosched()
		}
	}
	if err := sup.Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Actors != 0 || st.Leaked != 0 {
		t.Fatalf("left: %+v", st)
	}
}

func TestKillLeaksAStuckHandlerVisibly(t *testing.T) {
	s := local(t)
	stuck, release := make(chan struct{}), make(chan struct{})
	inst, err := actors.Child(s, "stuck", receive(func(ctx actor.Context) {
		close(stuck)
		<-release
	})).Start(testContext(t), supervisor.Incarnation{N: 1})
	if err != nil {
		t.Fatal(err)
	}
	pid := actor.NewPID("0", "stuck")
	_ = s.Send(t.Context(), pid, 1)
	<-stuck
	_ = s.Send(t.Context(), pid, "queued")
	inst.Stop()
	inst.Kill()
	inst.Kill()
	next(t, inst.Done())
	wantKind(t, inst.Reason(), supervisor.Killed)
	leaked := inst.(interface{ Leaked() <-chan struct{} }).Leaked()
	if total, latest := s.DeadLetters(); total != 1 || latest[0].Type != "string" {
		t.Fatalf("dead letters %v", latest)
	}
	if s.Stats().Leaked != 1 {
		t.Fatal("the leaked handler is not counted")
	}
	spawn(t, s, "stuck", echo)
	close(release)
	next(t, leaked)
	if v := ask(t, s, pid, "x"); v != "x" || s.Stats().Leaked != 0 {
		t.Fatalf("%v, %+v", v, s.Stats())
	}
}

// A monitor is cancelled while its Down is on its way: it is there when Cancel returns,
// or never.
func TestCancelAgainstDown(t *testing.T) {
	s := local(t)
	was, never := 0, 0
	for i := range 2000 {
		pid := spawn(t, s, "a", echo)
		m, end := s.Monitor(pid), s.Monitor(pid)
		var race sync.WaitGroup
		race.Go(func() {
			for range i % 64 {
				runtime.Gosched()
			}
			m.Cancel()
			n := len(m.C)
			next(t, end.C)
			if len(m.C) != n {
				t.Errorf("round %d: Down came after Cancel had returned", i)
			}
			if n == 0 {
				never++
			} else {
				was++
			}
		})
		stop(t, s, pid)
		race.Wait()
	}
	t.Logf("%d came, %d did not", was, never)
	if n := s.Stats().Monitors; n != 0 {
		t.Errorf("%d monitors left", n)
	}
}
