package actors_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type point struct {
	X, Y int
	Note map[string]string
	Who  *actor.PID
}

func init() {
	actors.RegisterType[*point]("test.point")
	actors.RegisterType[point]("test.point.value")
}

type unregistered struct{ N int }

var killedBy9 = supervisor.Reason{Kind: supervisor.Signaled, Signal: 9}

// ways are the ways an actor can be reached: from where, to where, and how.
func ways(t *testing.T, run func(t *testing.T, from, to *actors.System, pid func(id string) *actor.PID)) {
	t.Helper()
	tree := newTree(t, 2)
	m, a, b := tree.Master, tree.Child(0), tree.Child(1)
	rows := []struct {
		name     string
		from, to *actors.System
		pid      func(id string) *actor.PID
	}{
		{"local", a, a, at(a)},
		{"master to child", m, a, at(a)},
		{"master to child by name", m, a, named(m, "test/0/")},
		{"child to master", a, m, at(m)},
		{"child to master by name", a, m, named(a, "")},
		{"sibling to sibling", a, b, at(b)},
		{"sibling to sibling by name", a, b, named(a, "test/1/")},
		{"self by name", a, a, named(a, "test/0/")},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { run(t, row.from, row.to, row.pid) })
	}
}

func at(s *actors.System) func(string) *actor.PID {
	return func(id string) *actor.PID { return actor.NewPID(s.Address(), id) }
}

func named(s *actors.System, prefix string) func(string) *actor.PID {
	return func(id string) *actor.PID { return s.Lookup(prefix + id) }
}

func stop(t *testing.T, s *actors.System, pid *actor.PID) {
	t.Helper()
	if err := s.Stop(testContext(t), pid); err != nil {
		t.Fatal(err)
	}
}

func TestEveryWayAsk(t *testing.T) {
	ways(t, func(t *testing.T, from, to *actors.System, pid func(string) *actor.PID) {
		own := spawn(t, to, "echo", echo)
		defer stop(t, to, own)
		for _, msg := range []any{"text", 42, wrapperspb.Int64(7), []byte{1, 2}, point{X: 1, Y: 2}} {
			v := ask(t, from, pid("echo"), msg)
			switch want := msg.(type) {
			case *wrapperspb.Int64Value:
				if v.(*wrapperspb.Int64Value).Value != 7 {
					t.Errorf("got %v", v)
				}
			case []byte:
				if len(v.([]byte)) != 2 {
					t.Errorf("got %v", v)
				}
			case point:
				if v.(point).Y != 2 {
					t.Errorf("got %v", v)
				}
			default:
				if v != want {
					t.Errorf("got %v, want %v", v, want)
				}
			}
		}
		p := ask(t, from, pid("echo"), &point{X: 3, Note: map[string]string{"a": "b"}, Who: own}).(*point)
		if p.X != 3 || p.Note["a"] != "b" || !p.Who.Equal(own) {
			t.Errorf("got %v", p)
		}
		if v := ask(t, from, p.Who, "by the pid in a message"); v != "by the pid in a message" {
			t.Errorf("got %v", v)
		}
	})
}

func TestEveryWayAskFails(t *testing.T) {
	ways(t, func(t *testing.T, from, to *actors.System, pid func(string) *actor.PID) {
		ctx := testContext(t)
		_, err := from.Ask(ctx, pid("absent"), "x")
		wantErr(t, err, actors.ErrNoActor)

		own := spawn(t, to, "echo", receive(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case hold:
				close(holds.take(int(m)))
			case string:
				if m == "unregistered" {
					ctx.Respond(unregistered{1})
					return
				}
				ctx.Stop(ctx.Self())
			}
		}))
		held := askHeld(t, ctx, from, pid("echo"))
		if from != to {
			_, err = from.Ask(ctx, pid("echo"), unregistered{1})
			wantErr(t, err, actors.ErrType)
			_, err = from.Ask(ctx, pid("echo"), "unregistered")
			wantErr(t, err, actors.ErrType)
		}
		_, err = from.Ask(ctx, pid("echo"), "end")
		wantErr(t, err, actors.ErrDown)
		wantErr(t, next(t, held), actors.ErrDown)
		_ = own

		spawn(t, to, "panics", echo)
		_, err = from.Ask(ctx, pid("panics"), "panic")
		var down *actors.DownError
		if !errors.As(err, &down) || down.Reason.Kind != supervisor.Panic || down.Reason.Value != "as told" {
			t.Fatalf("error %v", err)
		}
		short, cancel := context.WithCancel(ctx)
		pid2 := spawn(t, to, "slow", echo)
		defer stop(t, to, pid2)
		held = askHeld(t, short, from, pid("slow"))
		cancel()
		wantErr(t, next(t, held), context.Canceled)
		_, err = from.Ask(ctx, nil, "x")
		wantErr(t, err, actors.ErrNoActor)
		_, err = from.Ask(ctx, pid("slow"), nil)
		wantErr(t, err, actors.ErrMalformed)
	})
}

func TestEveryWayMonitor(t *testing.T) {
	ways(t, func(t *testing.T, from, to *actors.System, pid func(string) *actor.PID) {
		d := next(t, from.Monitor(pid("absent")).C)
		wantErr(t, d.Reason.Err(), actors.ErrNoActor)

		spawn(t, to, "echo", echo)
		m := from.Monitor(pid("echo"))
		gone := from.Monitor(pid("echo"))
		gone.Cancel()
		if err := from.Send(t.Context(), pid("echo"), "panic"); err != nil {
			t.Fatal(err)
		}
		d = next(t, m.C)
		wantKind(t, d.Reason, supervisor.Panic)
		if d.Reason.Value != "as told" || d.Reason.Stack == "" || !d.PID.Equal(pid("echo")) {
			t.Errorf("Down %v %v", d.PID, d.Reason)
		}
		// An actor's monitor: a message, after all that the other actor sent.
		spawn(t, to, "talker", receive(func(ctx actor.Context) {
			for i := range 10 {
				ctx.Send(ctx.Sender(), i)
			}
			actors.Exit(errors.New("done"))
		}))
		p := newProbe(t, from, "")
		p.Do(func(ctx actor.Context) {
			from.MonitorFrom(ctx, pid("talker"))
			ctx.Request(pid("talker"), "talk")
		})
		for i := range 10 {
			if got := p.Next(); got.Message != i {
				t.Fatalf("got %v, want %d", got.Message, i)
			}
		}
		down := p.Next().Message.(*actors.Down)
		if down.Reason.Kind != supervisor.Error || down.Reason.Cause.Error() != "done" {
			t.Errorf("Down %v", down.Reason)
		}
		stop(t, from, p.PID)
		if n := from.Stats().Monitors; from.Address() != "0" && n != 0 {
			t.Errorf("%d monitors left", n)
		}
		select {
		case <-gone.C:
			t.Error("a cancelled monitor fired")
		default:
		}
	})
}

func TestEveryWayProtoactor(t *testing.T) {
	ways(t, func(t *testing.T, from, to *actors.System, pid func(string) *actor.PID) {
		p := newProbe(t, from, "")
		defer stop(t, from, p.PID)
		spawn(t, to, "echo", echo)
		p.Do(func(ctx actor.Context) { ctx.Request(pid("echo"), "hello") })
		if got := p.Next(); got.Message != "hello" {
			t.Fatalf("got %v", got)
		}
		// Unknown: DeadLetterResponse, Terminated NotFound.
		p.Do(func(ctx actor.Context) { ctx.Request(pid("absent"), "hello") })
		if _, ok := p.Next().Message.(*actor.DeadLetterResponse); !ok {
			t.Fatal("no DeadLetterResponse")
		}
		p.Do(func(ctx actor.Context) { ctx.Watch(pid("absent")) })
		if m := p.Terminated(); m.Why != actor.TerminatedReason_NotFound {
			t.Fatalf("Why %v", m.Why)
		}
		// Watch twice, unwatch, watch: one Terminated.
		p.Do(func(ctx actor.Context) {
			ctx.Watch(pid("echo"))
			ctx.Watch(pid("echo"))
			ctx.Unwatch(pid("echo"))
			ctx.Watch(pid("echo"))
			ctx.Request(pid("echo"), "ordered after Watch")
		})
		p.Next()
		p.Do(func(ctx actor.Context) { ctx.Stop(pid("echo")) })
		if m := p.Terminated(); m.Why != actor.TerminatedReason_Stopped {
			t.Fatalf("Why %v", m.Why)
		}
		// Poison keeps its place in the queue.
		spawn(t, to, "echo", echo)
		p.Do(func(ctx actor.Context) {
			ctx.Watch(pid("echo"))
			ctx.Request(pid("echo"), "first")
			ctx.Poison(pid("echo"))
		})
		if got := p.Next(); got.Message != "first" {
			t.Fatalf("got %v", got)
		}
		if m := p.Terminated(); m.Why != actor.TerminatedReason_Stopped {
			t.Fatalf("Why %v", m.Why)
		}
		// Headers and the trace context arrive.
		q := newProbe(t, to, "probe")
		defer stop(t, to, q.PID)
		p.Do(func(ctx actor.Context) {
			ctx.Send(pid("probe"), &actor.MessageEnvelope{Header: map[string]string{"k": "v"}, Message: "m", Sender: ctx.Self()})
		})
		if got := q.Next(); got.Header["k"] != "v" || !got.Sender.Equal(p.PID) {
			t.Fatalf("got %v", got)
		}
		sc := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: 1})
		if err := from.Send(trace.ContextWithSpanContext(t.Context(), sc), pid("probe"), "traced"); err != nil {
			t.Fatal(err)
		}
		if got := q.Next(); got.Header["traceparent"] != "00-01000000000000000000000000000000-0200000000000000-01" {
			t.Fatalf("got %v", got)
		}
		q.Do(func(ctx actor.Context) {
			if trace.SpanContextFromContext(actors.Context(ctx)).IsValid() {
				t.Error("a span out of nowhere")
			}
		})
		// Our Poison and Stop wait for the end.
		spawn(t, to, "echo", echo)
		if err := from.Poison(testContext(t), pid("echo")); err != nil {
			t.Fatal(err)
		}
		_, err := from.Ask(testContext(t), pid("echo"), "x")
		wantErr(t, err, actors.ErrNoActor)
		stop(t, from, pid("echo")) // idempotent
	})
}

func TestDeathOfAProcess(t *testing.T) {
	for _, from := range []string{"master", "sibling"} {
		for _, by := range []string{"pid", "name"} {
			t.Run(from+" by "+by, func(t *testing.T) {
				tree := newTree(t, 2)
				s := tree.Master
				if from == "sibling" {
					s = tree.Child(1)
				}
				victim := tree.Child(0)
				spawn(t, victim, "echo", echo)
				pid := actor.NewPID(victim.Address(), "echo")
				proc := actors.ProcessPID(victim.Address())
				if by == "name" {
					pid, proc = s.Lookup("test/0/echo"), s.Lookup("test/0")
				}
				mon, procMon := s.Monitor(pid), s.Monitor(proc)
				p := newProbe(t, s, "")
				p.Do(func(ctx actor.Context) { ctx.Watch(pid) })
				held := askHeld(t, testContext(t), s, pid)
				ask(t, s, pid, "x") // after Watch and the monitors

				tree.Kill(0, killedBy9)
				err := next(t, held)
				var down *actors.DownError
				if !errors.As(err, &down) || down.Reason.Signal != 9 {
					t.Fatalf("ask: %v", err)
				}
				for _, m := range []*actors.Monitor{mon, procMon} {
					if d := next(t, m.C); d.Reason.Kind != supervisor.Signaled || d.Reason.Signal != 9 {
						t.Fatalf("Down %v", d.Reason)
					}
				}
				if m := p.Terminated(); m.Why != actor.TerminatedReason_AddressTerminated || !m.Who.Equal(pid) {
					t.Fatalf("Terminated %v", m)
				}
				_, err = s.Ask(testContext(t), pid, "x")
				if by == "pid" {
					wantErr(t, err, actors.ErrDown)
				} else {
					wantErr(t, err, actors.ErrNoActor) // in the gap nobody has the name
				}

				// The replacement takes the name, and PIDs kept by actors reach it.
				if by == "name" {
					spawn(t, tree.Start(0), "echo", echo)
					if v := ask(t, s, pid, "again"); v != "again" {
						t.Fatalf("got %v", v)
					}
					p.Do(func(ctx actor.Context) { ctx.Request(pid, "kept") })
					if got := p.Next(); got.Message != "kept" {
						t.Fatalf("got %v", got)
					}
				}
			})
		}
	}
}

func TestDeathOfTheMaster(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	spawn(t, b, "echo", echo)
	spawn(t, tree.Master, "echo", echo)
	ctx := testContext(t)
	sibling := actor.NewPID(b.Address(), "echo")
	one := askHeld(t, ctx, a, sibling)
	two := askHeld(t, ctx, a, a.Lookup("echo"))
	m, sib := a.Monitor(actors.ProcessPID("0")), a.Monitor(actors.ProcessPID(b.Address()))
	a.Detach("0", killedBy9)
	wantErr(t, next(t, two), actors.ErrDown)
	wantKind(t, next(t, m.C).Reason, supervisor.Signaled)
	_, err := a.Ask(ctx, a.Lookup("other"), "x")
	wantErr(t, err, actors.ErrDown)
	_, err = a.Ask(ctx, actor.NewPID("77", "x"), "x")
	wantErr(t, err, actors.ErrDown) // nobody makes a new lane
	// The lane that is there lasts as long as the sibling.
	if v := ask(t, a, sibling, "orphans"); v != "orphans" {
		t.Fatalf("got %v", v)
	}
	if err := b.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	wantErr(t, next(t, one), actors.ErrDown)
	wantErr(t, next(t, sib.C).Reason.Err(), fdipc.ErrPeerLost)
}

func TestNames(t *testing.T) {
	tree := newTree(t, 2)
	ctx := testContext(t)
	a, b := tree.Child(0), tree.Child(1)
	pa, pb := spawn(t, a, "one", echo), spawn(t, b, "two", receive(func(ctx actor.Context) { ctx.Respond("two") }))
	if err := a.Register(ctx, "sessions", pa); err != nil {
		t.Fatal(err)
	}
	if err := a.Register(ctx, "sessions", pa); err != nil {
		t.Fatalf("again: %v", err)
	}
	wantErr(t, b.Register(ctx, "sessions", pb), actors.ErrNameTaken)
	wantErr(t, tree.Master.Register(ctx, "sessions", pb), actors.ErrNameTaken)
	wantErr(t, b.Register(ctx, "mine", pa), actors.ErrName)
	wantErr(t, b.Register(ctx, "bad$name", pb), actors.ErrName)
	// Nobody is found out at once or a moment later.
	if err := a.Register(ctx, "nobody", actor.NewPID(a.Address(), "nobody")); err != nil {
		wantErr(t, err, actors.ErrNoActor)
	}
	for _, s := range []*actors.System{tree.Master, a, b} {
		if v := ask(t, s, s.Lookup("sessions"), "x"); v != "x" {
			t.Fatalf("got %v", v)
		}
		if pid, err := s.Whereis(ctx, "sessions"); err != nil || !pid.Equal(pa) {
			t.Fatalf("whereis: %v %v", pid, err)
		}
		_, err := s.Whereis(ctx, "nothing")
		wantErr(t, err, actors.ErrNoActor)
	}
	// The name moves; a PID that was used before follows it.
	kept := a.Lookup("sessions")
	p := newProbe(t, a, "")
	p.Do(func(ctx actor.Context) { ctx.Request(kept, "x") })
	p.Next()
	if err := b.Reregister(ctx, "sessions", pb); err != nil {
		t.Fatal(err)
	}
	p.Do(func(ctx actor.Context) { ctx.Request(kept, "x") })
	if got := p.Next(); got.Message != "two" {
		t.Fatalf("got %v", got)
	}
	// The old holder's end does not free it, the new one's does.
	stop(t, a, pa)
	if pid, err := a.Whereis(ctx, "sessions"); err != nil || !pid.Equal(pb) {
		t.Fatalf("whereis: %v %v", pid, err)
	}
	stop(t, b, pb)
	for {
		if _, err := a.Whereis(ctx, "sessions"); errors.Is(err, actors.ErrNoActor) {
			break
		}
		runtime.Gosched()
	}
	// So does the end of its process.
	pa = spawn(t, a, "one", echo)
	if err := a.Register(ctx, "sessions", pa); err != nil {
		t.Fatal(err)
	}
	tree.Kill(0, killedBy9)
	_, err := b.Whereis(ctx, "sessions")
	wantErr(t, err, actors.ErrNoActor)
	if err := b.Unregister(ctx, "sessions", pa); err == nil {
		t.Fatal("a child freed another's name")
	}
}

func TestStopOfAProcessAsksItsHook(t *testing.T) {
	asked := make(chan string, 2)
	master := newSystem(t, actors.Config{Address: "0", Hooks: actors.Hooks{Stop: func(from string) { asked <- from }}})
	if err := master.Send(t.Context(), master.Process(), "x"); err == nil {
		t.Fatal("a process took a message")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- master.Stop(ctx, master.Process()) }()
	if from := next(t, asked); from != "0" {
		t.Fatalf("asked by %q", from)
	}
	master.Actor().Root.Stop(master.Process())
	cancel()
	wantErr(t, next(t, done), context.Canceled)
	if len(asked) != 0 {
		t.Fatal("the hook was called twice")
	}
}

// A child that looks up names without end fills nothing in the master, and what
// it remembers stays right.
func TestNamesWithoutEnd(t *testing.T) {
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	for _, s := range []*actors.System{a, b} {
		spawn(t, s, "where", receive(func(ctx actor.Context) { ctx.Respond(s.Address()) }))
	}
	name := a.Lookup("service")
	if err := b.Register(testContext(t), "service", actor.NewPID(b.Address(), "where")); err != nil {
		t.Fatal(err)
	}
	if v := ask(t, a, name, 0); v != b.Address() {
		t.Fatal(v)
	}
	for i := range 3 * actors.MaxRemembered / 100 { // each name has a hundred beginnings
		_, err := a.Ask(testContext(t), a.Lookup(fmt.Sprintf("%05d%s", i, strings.Repeat("/x", 100))), 0)
		wantErr(t, err, actors.ErrNoActor)
		if n := actors.Remembered(tree.Master); n > actors.MaxRemembered+200 {
			t.Fatalf("%d names kept, want at most %d", n, actors.MaxRemembered)
		}
	}
	if err := b.Unregister(testContext(t), "service", actor.NewPID(b.Address(), "where")); err != nil {
		t.Fatal(err)
	}
	if err := a.Register(testContext(t), "service", actor.NewPID(a.Address(), "where")); err != nil {
		t.Fatal(err)
	}
	if v := ask(t, a, name, 0); v != a.Address() {
		t.Fatal(v)
	}
}

// TestLongPID: a PID that is too long to travel is refused where it is used: who asks and who
// monitors hears of it, and does not wait for an answer that cannot come.
func TestLongPID(t *testing.T) {
	tree := newTree(t, 1)
	long := actor.NewPID(tree.Master.Process().Address, strings.Repeat("x", 5000))
	_, err := tree.Child(0).Ask(testContext(t), long, &wrapperspb.StringValue{Value: "x"})
	wantErr(t, err, actors.ErrMalformed)
	down := next(t, tree.Child(0).Monitor(long).C)
	wantErr(t, down.Reason.Err(), actors.ErrMalformed)
	err = tree.Child(0).Register(testContext(t), strings.Repeat("n", 256), long)
	wantErr(t, err, actors.ErrName)
}
