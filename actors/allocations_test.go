package actors

import (
	"context"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// answering is a Conn to a process that answers each ask at once, with an integer.
type answering struct {
	discard
	s       *System
	payload []byte
	types   codec.MessageWriter
}

func (c *answering) TrySend(f *fdipc.Frame) error {
	if f.Kind != wire.KindUser || f.Flags&wire.FlagSender == 0 {
		return nil
	}
	r := wire.Reader{B: f.Payload}
	var asker actor.PID
	r.ReadPID(&asker, "1", "counter")
	r.ReadPID(&asker, "1", "0", askID)
	c.payload, _ = c.types.Append(wire.AppendPID(c.payload[:0], &asker), 7)
	c.s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindUser, Lane: fdipc.Data, Payload: c.payload})
	return nil
}

// What a message between processes allocates, on either side: what its receiver is given, and of an
// ask the call that waits.
func TestMessageAllocations(t *testing.T) {
	s := quietSystem(t, Config{Address: "0"})
	if err := s.Attach("1", 0, &answering{s: s}); err != nil {
		t.Fatal(err)
	}
	here, there, ctx := actor.NewPID("0", "counter"), actor.NewPID("1", "counter"), context.Background()
	handled := make(chan struct{}, 1)
	if _, err := s.SpawnSpec(ctx, Spec{Name: "counter", New: func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch ctx.Message().(type) {
			case []byte, int:
				handled <- struct{}{}
			}
		})
	}}); err != nil {
		t.Fatal(err)
	}
	frame := func(flags uint8, msg any, pids ...*actor.PID) func() {
		var b []byte
		for _, pid := range pids {
			b = wire.AppendPID(b, pid)
		}
		b, err := new(codec.MessageWriter).Append(b, msg)
		if err != nil {
			t.Fatal(err)
		}
		f := &fdipc.Frame{Kind: wire.KindUser, Lane: fdipc.Data, Flags: flags, Payload: b}
		return func() {
			s.HandleFrame("1", f)
			<-handled
		}
	}
	var told any = make([]byte, 64)
	var asked any = 7
	for _, row := range []struct {
		name string
		most float64
		do   func()
	}{
		{"tell", 0, func() { _ = s.Send(ctx, there, told) }},
		{"ask and its answer", 2, func() {
			if v, err := s.Ask(ctx, there, asked); v != 7 || err != nil {
				t.Fatal(v, err)
			}
		}},
		{"take a tell", 2, frame(0, told, here)},
		{"take an ask", 2, frame(wire.FlagSender, asked, here, askPID("1", 1))}, // the PID of the asker, the envelope
		{"tell an actor here", 0, func() { _ = s.Send(ctx, here, asked); <-handled }},
	} {
		// An actor's goroutine that begins may allocate; so may the collector's end of a pool.
		if n := testing.AllocsPerRun(1000, row.do); n > row.most {
			t.Errorf("%s: %v allocations, want %v", row.name, n, row.most)
		}
	}
}
