package actors

import (
	"errors"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
)

// TestShareOfAsksAndMonitors: one process may have so many of them here and no more; what
// ends makes room, and another process has its own.
func TestShareOfAsksAndMonitors(t *testing.T) {
	var in inbound
	in.init()
	ask := func(address string, id uint32) *actor.PID {
		return &actor.PID{Address: address, Id: askID, RequestId: id}
	}
	for i := range uint32(maxAsks) {
		if !in.beginAsk(ask("1", i)) {
			t.Fatalf("ask %d refused", i)
		}
	}
	if in.beginAsk(ask("1", maxAsks)) || !in.beginAsk(ask("2", maxAsks)) {
		t.Error("not refused, or not only to the one who has too many")
	}
	in.endAsk(ask("1", 7))
	if !in.beginAsk(ask("1", maxAsks)) {
		t.Error("refused when there was room again")
	}

	for i := range uint64(maxMonitors) {
		if err := in.addMonitor("1", i, func() {}); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := in.addMonitor("1", maxMonitors, func() {}); !errors.Is(err, ErrTooMany) {
		t.Errorf("error %v, want ErrTooMany", err)
	}
	if err := in.addMonitor("1", 7, func() {}); !errors.Is(err, ErrMalformed) {
		t.Errorf("error %v, want ErrMalformed", err)
	}
	in.takeMonitor("1", 7)
	if err := in.addMonitor("1", maxMonitors, func() {}); err != nil {
		t.Error(err)
	}
}
