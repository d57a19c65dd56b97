package actors_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

// counter counts what it is told and answers when it is asked.
func counter() actor.Actor {
	return actor.ReceiveFunc(func(ctx actor.Context) {
		if ctx.Sender() != nil {
			ctx.Respond(1)
		}
	})
}

func benchPID(b *testing.B, s *actors.System, name string) *actor.PID {
	b.Helper()
	pid, err := s.Spawn(context.Background(), name, counter)
	if err != nil {
		b.Fatal(err)
	}
	return pid
}

// One op is one message told and handled.
func BenchmarkLocalTell(b *testing.B) {
	s := newSystem(b, actors.Config{Address: "0"})
	pid := benchPID(b, s, "a")
	ctx := context.Background()
	b.ReportAllocs()
	var msg any = 1
	for b.Loop() {
		_ = s.Send(ctx, pid, msg)
	}
	_, _ = s.Ask(ctx, pid, msg)
}

// One op is one message told with protoactor alone, and handled.
func BenchmarkBareTell(b *testing.B) {
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	pid := sys.Root.Spawn(actor.PropsFromProducer(counter))
	b.ReportAllocs()
	var msg any = 1
	for b.Loop() {
		sys.Root.Send(pid, msg)
	}
	_ = sys.Root.RequestFuture(pid, msg, patience).Wait()
}

func BenchmarkLocalAsk(b *testing.B) {
	s := newSystem(b, actors.Config{Address: "0"})
	benchAsk(b, s, benchPID(b, s, "a"), 1)
}

func BenchmarkBareAsk(b *testing.B) {
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	pid := sys.Root.Spawn(actor.PropsFromProducer(counter))
	b.ReportAllocs()
	for b.Loop() {
		_ = sys.Root.RequestFuture(pid, 1, patience).Wait()
	}
}

// One op is one ask and its answer, with n in flight.
func benchAsk(b *testing.B, s *actors.System, pid *actor.PID, n int) {
	b.Helper()
	b.ReportAllocs()
	ctx := context.Background()
	var wg sync.WaitGroup
	per := 64
	for b.Loop() {
		if n == 1 {
			if _, err := s.Ask(ctx, pid, 1); err != nil {
				b.Fatal(err)
			}
			continue
		}
		for range n {
			wg.Go(func() {
				for range per {
					if _, err := s.Ask(ctx, pid, 1); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	if n > 1 {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*per), "ns/ask")
	}
}
