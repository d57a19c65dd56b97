package actors_test

import (
	"context"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

func BenchmarkProcessAsk1(b *testing.B)  { benchProcessAsk(b, 1) }
func BenchmarkProcessAsk64(b *testing.B) { benchProcessAsk(b, 64) }

func benchProcessAsk(b *testing.B, n int) {
	s := newSystem(b, actors.Config{Address: "0"})
	startPeer(b, s, 1, "worker")
	benchAsk(b, s, actor.NewPID("1", "count"), n)
}

// One op is one message of 64 bytes told to another process, and handled there.
func BenchmarkProcessTell64(b *testing.B) {
	s := newSystem(b, actors.Config{Address: "0"})
	startPeer(b, s, 1, "worker")
	pid := actor.NewPID("1", "count")
	ctx := context.Background()
	var msg any = strings.Repeat("x", 64)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(ctx, pid, msg); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := s.Ask(ctx, pid, msg); err != nil {
		b.Fatal(err)
	}
}
