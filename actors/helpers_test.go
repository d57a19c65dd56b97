package actors_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
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
	switch m := ctx.Message().(type) {
	case string:
		if m == "panic" {
			panic("as told")
		}
		ctx.Respond(m)
	case hold:
		close(holds.take(int(m)))
	default:
		ctx.Respond(m)
	}
})

// hold is an ask that is not answered. Its number finds the channel that is
// closed when it was taken.
type hold int

func init() { actors.RegisterType[hold]("test.hold") }

type holdTable struct {
	mu sync.Mutex
	m  map[int]chan struct{}
}

var holds = holdTable{m: make(map[int]chan struct{})}

func (h *holdTable) put() (int, chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, c := rand.Int(), make(chan struct{})
	h.m[n] = c
	return n, c
}

func (h *holdTable) take(n int) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.m[n]
}

// askHeld asks an echo what it does not answer, waits until it was taken, and
// returns how the ask ends.
func askHeld(t *testing.T, ctx context.Context, s *actors.System, pid *actor.PID) <-chan error {
	t.Helper()
	n, taken := holds.put()
	end := make(chan error, 1)
	go func() { // ends with ctx at the latest
		_, err := s.Ask(ctx, pid, hold(n))
		end <- err
	}()
	next(t, taken)
	return end
}

func spawn(t *testing.T, s *actors.System, name string, producer func() actor.Actor) *actor.PID {
	t.Helper()
	pid, err := s.Spawn(testContext(t), name, producer)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func ask(t *testing.T, s *actors.System, pid *actor.PID, msg any) any {
	t.Helper()
	v, err := s.Ask(testContext(t), pid, msg)
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
	return newSystem(t, actors.Config{Address: "0"})
}
