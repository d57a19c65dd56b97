package actors

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
)

// TestAskTable: each ask ends once, by its answer, by the end of its process or of its context,
// and is no longer counted then.
func TestAskTable(t *testing.T) {
	var given []string
	table := newAskTable("1", func(address string, ask *actor.PID) { given = append(given, address) })
	var onWay atomic.Int32
	begin := func() *pendingAsk {
		ask, err := table.begin(actor.NewPID("2", "x"))
		if err != nil {
			t.Fatal(err)
		}
		table.sentTo(uint32(ask.ID), "2", &onWay)
		return ask
	}
	answered, failed, left, gone := begin(), begin(), begin(), begin()
	if onWay.Load() != 4 || table.calls.Len() != 4 || len(table.askedAt("2")) != 4 || len(table.askedAt("3")) != 0 {
		t.Errorf("%d on their way, %d wait", onWay.Load(), table.calls.Len())
	}
	if !table.finish(uint32(answered.ID), 7, nil) || table.finish(uint32(answered.ID), 8, nil) {
		t.Error("not answered once")
	}
	if v, err := table.wait(t.Context(), answered); v != 7 || err != nil {
		t.Errorf("answer %v, error %v", v, err)
	}
	if !table.finish(uint32(failed.ID), nil, ErrType) {
		t.Error("not failed")
	}
	if _, err := table.wait(t.Context(), failed); !errors.Is(err, ErrType) {
		t.Errorf("error %v, want ErrType", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrBusy)
	if _, err := table.wait(ctx, left); !errors.Is(err, ErrBusy) || len(given) != 1 || given[0] != "2" {
		t.Errorf("error %v, want the context's cause; given up at %v", err, given)
	}
	table.failAt("2", killed)
	if _, err := table.wait(t.Context(), gone); !errors.Is(err, ErrDown) {
		t.Errorf("error %v, want ErrDown", err)
	}
	if onWay.Load() != 0 || table.calls.Len() != 0 {
		t.Errorf("%d on their way, %d wait, at the end", onWay.Load(), table.calls.Len())
	}
}
