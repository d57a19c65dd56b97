package actors

import (
	"context"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// One op is one message of 64 bytes taken from a frame, and handled.
func BenchmarkReceive64(b *testing.B) {
	s := quietSystem(b, Config{Address: "0"})
	n := 0
	if _, err := s.Spawn(b.Context(), "a", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().([]byte); ok {
				if n++; ctx.Sender() != nil {
					ctx.Respond(n)
				}
			}
		})
	}); err != nil {
		b.Fatal(err)
	}
	if err := s.Attach("1", 0, &sink{}); err != nil {
		b.Fatal(err)
	}
	payload, err := new(codec.MessageWriter).Append(wire.AppendPID(nil, actor.NewPID("0", "a")), make([]byte, 64))
	if err != nil {
		b.Fatal(err)
	}
	f := &fdipc.Frame{Kind: wire.KindUser, Lane: fdipc.Data, Payload: payload}
	b.ReportAllocs()
	for b.Loop() {
		s.HandleFrame("1", f)
	}
	if v, err := s.Ask(b.Context(), actor.NewPID("0", "a"), []byte{1}); err != nil || v.(int) != b.N+1 {
		b.Fatal(v, err)
	}
}

// discard is a Conn on which everything arrives nowhere.
type discard struct{}

func (discard) TrySend(*fdipc.Frame) error               { return nil }
func (discard) Send(context.Context, *fdipc.Frame) error { return nil }

// One op is one message of 64 bytes made a frame.
func BenchmarkSend64(b *testing.B) {
	s := quietSystem(b, Config{Address: "0"})
	if err := s.Attach("1", 0, discard{}); err != nil {
		b.Fatal(err)
	}
	pid, ctx := actor.NewPID("1", "a"), context.Background()
	var msg any = make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Send(ctx, pid, msg); err != nil {
			b.Fatal(err)
		}
	}
}
