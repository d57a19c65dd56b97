package actors

import (
	"errors"
	"strconv"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// TestShareOfAsksAndMonitors: one process may have so many of them here and no more; what
// ends makes room, and another process has its own.
func TestShareOfAsksAndMonitors(t *testing.T) {
	in := newInbound(nil)
	one, two := &askShare{address: "1"}, &askShare{address: "2"}
	for i := range uint32(maxAsks) {
		if !in.beginAsk(one, askOf("1", i)) {
			t.Fatalf("ask %d refused", i)
		}
	}
	if in.beginAsk(one, askOf("1", maxAsks)) || !in.beginAsk(two, askOf("2", maxAsks)) {
		t.Error("not refused, or not only to the one who has too many")
	}
	in.endAsk(askOf("1", 7))
	if !in.beginAsk(one, askOf("1", maxAsks)) {
		t.Error("refused when there was room again")
	}

	for i := range uint64(maxMonitors) {
		if err := in.addMonitor("1", i, "a"); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := in.addMonitor("1", maxMonitors, "a"); !errors.Is(err, ErrTooMany) {
		t.Errorf("error %v, want ErrTooMany", err)
	}
	if err := in.addMonitor("1", 7, "a"); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want ErrMalformed", err)
	}
	in.takeMonitor("1", 7)
	if err := in.addMonitor("1", maxMonitors, "a"); err != nil {
		t.Error(err)
	}
}

func askOf(address string, request uint32) *actor.PID {
	return &actor.PID{Address: address, Id: askID, RequestId: request}
}

// TestForgedAsksAreTheSenders: asks that name another process as asker, or one that there is
// not, use up the share of the process that sends them, and end with it.
func TestForgedAsksAreTheSenders(t *testing.T) {
	for _, row := range []struct{ name, uplink, asker string }{
		{"a sibling, in the master", "", "2"},
		{"a sibling, in a child", "2", "2"},
		{"one that there is not, in a child", "2", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := quietSystem(t, Config{Address: "0"})
			if row.uplink != "" {
				s.Uplink(row.uplink)
			}
			for _, a := range []string{"1", "2"} {
				if err := s.Attach(a, 0, discard{}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := s.Spawn(t.Context(), "deaf", func() actor.Actor {
				return actor.ReceiveFunc(func(actor.Context) {})
			}); err != nil {
				t.Fatal(err)
			}
			send := func(from, asker string, request uint32) bool {
				pid := askOf(asker, request)
				b, err := new(codec.MessageWriter).Append(wire.AppendPID(wire.AppendPID(nil, actor.NewPID("0", "deaf")), pid), 7)
				if err != nil {
					t.Fatal(err)
				}
				s.HandleFrame(from, &fdipc.Frame{Kind: wire.KindUser, Lane: fdipc.Data, Flags: wire.FlagSender, Payload: b})
				return s.inbound.hasAsk(pid)
			}
			for i := range uint32(maxAsks + 100) {
				asker := row.asker
				if asker == "" {
					asker = strconv.Itoa(int(i) + 100)
				}
				if ok := send("1", asker, i); ok != (i < maxAsks) {
					t.Fatalf("ask %d is taken: %v", i, ok)
				}
			}
			if !send("2", "2", 1<<30) {
				t.Error("an ask of the process whose address was forged is refused")
			}
			s.Detach("1", killed)
			if n := Inbound(s); n != 1 {
				t.Errorf("%d asks are left, want that of the other process", n)
			}
		})
	}
}

// TestAskTwiceCountsOnce: an ask that comes by two processes is one, of the later's share.
func TestAskTwiceCountsOnce(t *testing.T) {
	in := newInbound(nil)
	one, two := &askShare{address: "1"}, &askShare{address: "2"}
	for _, share := range []*askShare{one, two, one, two} {
		if !in.beginAsk(share, askOf("1", 7)) {
			t.Fatal("refused")
		}
	}
	if one.unanswered != 0 || two.unanswered != 1 {
		t.Errorf("%d and %d asks count, want 0 and 1", one.unanswered, two.unanswered)
	}
	in.endAsk(askOf("1", 7))
	in.endAsk(askOf("1", 7))
	if two.unanswered != 0 || in.hasAsk(askOf("1", 7)) {
		t.Errorf("%d asks count at the end", two.unanswered)
	}
}
