package actors

import (
	"bytes"
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// busyActor spawns an actor that is busy until release. What it takes then, or the number of
// its bytes, is in got.
func busyActor(t *testing.T, s *System, spec Spec) (box *actorMailbox, got chan any, release func()) {
	t.Helper()
	busy, released := make(chan struct{}), make(chan struct{})
	got = make(chan any, 100)
	spec.Name = "busy"
	spec.New = func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case bool:
				close(busy)
				<-released
			case []byte:
				got <- len(m)
			case int:
				got <- m
			}
		})
	}
	pid, err := s.SpawnSpec(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), pid, true); err != nil {
		t.Fatal(err)
	}
	<-busy
	release = sync.OnceFunc(func() { close(released) })
	t.Cleanup(release)
	return s.local.find("busy").box, got, release
}

func wantQueue(t *testing.T, box *actorMailbox, want int) {
	t.Helper()
	if n := box.UserMessageCount(); n != want {
		t.Errorf("%d messages wait, want %d", n, want)
	}
}

// TestMailboxIsBoundedByBytes: what another process sends fills a mailbox by its bytes, under
// each policy; small messages still get in, and what is taken makes room.
func TestMailboxIsBoundedByBytes(t *testing.T) {
	const half = maxWeight / 2
	for _, row := range []struct {
		overflow Overflow
		err      error
		got      []any
	}{
		{Wait, ErrFull, []any{1, 2, 4}},
		{DropOldest, nil, []any{2, 3, 4}},
		{DropNewest, nil, []any{1, 2, 4}},
		{Fail, ErrFull, []any{1, 2, 4}},
	} {
		t.Run(row.overflow.String(), func(t *testing.T) {
			s := quietSystem(t, Config{Address: "0", SendWait: time.Millisecond})
			box, got, release := busyActor(t, s, Spec{Overflow: row.overflow})
			for i := range 2 {
				if err := box.postPeer(i+1, half); err != nil {
					t.Fatal(err)
				}
			}
			if err := box.postPeer(3, half); !errors.Is(err, row.err) {
				t.Errorf("error %v, want %v", err, row.err)
			}
			if err := box.postPeer(4, lightMessage); err != nil {
				t.Errorf("a small one: %v", err)
			}
			if n, _ := s.DeadLetters(); row.err == nil && n != 1 {
				t.Errorf("%d dead letters, want 1", n)
			}
			release()
			for _, want := range row.got {
				if v := <-got; v != want {
					t.Errorf("got %v, want %v", v, want)
				}
			}
			if n := box.heavyBytes.Load(); n != 0 {
				t.Errorf("%d bytes count of what was taken", n)
			}
		})
	}
}

// TestMailboxTakesOneThatIsLonger: a message that is longer than the bound gets in alone, and
// in the place of others where the oldest are dropped.
func TestMailboxTakesOneThatIsLonger(t *testing.T) {
	s := quietSystem(t, Config{Address: "0"})
	box, got, release := busyActor(t, s, Spec{Overflow: DropOldest})
	for i, bytes := range []int{maxWeight / 2, 10, maxWeight / 2, 10, 2 * maxWeight, 10} {
		if err := box.postPeer(i, bytes); err != nil {
			t.Fatal(err)
		}
	}
	wantQueue(t, box, 3)
	release()
	for _, want := range []int{3, 4, 5} {
		if v := <-got; v != want {
			t.Errorf("got %v, want %d", v, want)
		}
	}
}

// TestHigherBoundTakesMoreBytes: who raises the bound by number raises that by bytes; there is
// none without a bound.
func TestHigherBoundTakesMoreBytes(t *testing.T) {
	for bound, want := range map[int]int{
		1: maxWeight, DefaultBound: maxWeight, 2 * DefaultBound: 2 * maxWeight, Unbounded: math.MaxInt,
	} {
		if w := weightOf(bound); w != want {
			t.Errorf("bound %d: %d bytes, want %d", bound, w, want)
		}
	}
}

// TestFrameWeighsWhatItTook: a frame counts with its bytes.
func TestFrameWeighsWhatItTook(t *testing.T) {
	s := quietSystem(t, Config{Address: "0"})
	if err := s.Attach("1", 0, discard{}); err != nil {
		t.Fatal(err)
	}
	box, got, release := busyActor(t, s, Spec{Overflow: DropNewest})
	payload := userFrame(t, bytes.Repeat([]byte{1}, maxWeight/4))
	for range 10 {
		s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindUser, Lane: fdipc.Data, Payload: payload})
	}
	wantQueue(t, box, 3) // with their heads they are a little longer than a fourth
	release()
	for range 3 {
		if v := <-got; v != maxWeight/4 {
			t.Errorf("got %v bytes", v)
		}
	}
}

// TestEndersDoNotPileUp: of the Stops and Poisons that wait for a busy actor one is kept,
// however many its peer sends.
func TestEndersDoNotPileUp(t *testing.T) {
	s := quietSystem(t, Config{Address: "0"})
	if err := s.Attach("1", 0, discard{}); err != nil {
		t.Fatal(err)
	}
	box, _, release := busyActor(t, s, Spec{})
	pill := userFrame(t, &actor.PoisonPill{})
	ender := func(how byte) []byte {
		return append(wire.AppendString(append(wire.AppendPID(nil, actor.NewPID("0", "busy")), how), "1"), 0)
	}
	for range 100 {
		s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindUser, Lane: fdipc.Data, Payload: pill})
		s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindStop, Lane: fdipc.Data, Payload: ender(wire.StopPoison)})
	}
	wantQueue(t, box, 1)
	for range 100 {
		s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindStop, Lane: fdipc.Control, Payload: ender(wire.StopNormal)})
		s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindStop, Lane: fdipc.Control, Payload: ender(wire.StopShutdown)})
	}
	box.mu.Lock()
	n := len(box.system)
	box.mu.Unlock()
	if n != 1 {
		t.Errorf("%d system messages wait, want 1", n)
	}
	release()
	if err := s.Stop(context.Background(), actor.NewPID("0", "busy")); err != nil && !errors.Is(err, ErrNoActor) {
		t.Error(err)
	}
}

// userFrame is the payload of a message for busy.
func userFrame(t *testing.T, msg any) []byte {
	t.Helper()
	b, err := new(codec.MessageWriter).Append(wire.AppendPID(nil, actor.NewPID("0", "busy")), msg)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
