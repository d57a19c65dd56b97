package actors_test

import (
	"errors"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/actorstest"
	"github.com/coppice-go/coppice/supervisor"
)

// receive makes an actor of a function that gets user messages only.
func receive(f func(ctx actor.Context)) func() actor.Actor {
	return func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch ctx.Message().(type) {
			case *actor.Started, *actor.Stopping, *actor.Stopped, *actor.Terminated:
			default:
				f(ctx)
			}
		})
	}
}

// all makes an actor of a function that gets every message.
func all(f func(ctx actor.Context)) func() actor.Actor {
	return func() actor.Actor { return actor.ReceiveFunc(f) }
}

// echo answers with what it was asked; "panic" it panics at, "hold" it keeps.
var echo = receive(func(ctx actor.Context) {
	switch ctx.Message() {
	case "panic":
		panic("as told")
	case "hold":
	default:
		ctx.Respond(ctx.Message())
	}
})

func spawn(t *testing.T, s *actors.System, name string, producer func() actor.Actor) *actor.PID {
	t.Helper()
	pid, err := s.Spawn(actorstest.Context(t), name, producer)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func ask(t *testing.T, s *actors.System, pid *actor.PID, msg any) any {
	t.Helper()
	v, err := s.Ask(actorstest.Context(t), pid, msg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want one that is %v", err, want)
	}
}

func wantKind(t *testing.T, r supervisor.Reason, want supervisor.ReasonKind) {
	t.Helper()
	if r.Kind != want {
		t.Fatalf("reason %v, want kind %v", r, want)
	}
}

func local(t *testing.T) *actors.System {
	return actorstest.NewSystem(t, actors.Config{Address: "0"})
}
