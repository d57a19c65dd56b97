package hosts

import (
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
)

// TestOrderBesideTooMany: a master that answers as much as it can at once refuses an order: who
// asks waits for its end as long as that master answers anything.
func TestOrderBesideTooMany(t *testing.T) {
	o := &operator{answers: make(chan struct{})} // no room
	r := &received{msg: hostOrder{From: "bootb.0", Nonce: "x", Do: doReload}, sender: actor.NewPID("bootb.0", "ask")}
	o.receive(r)
	if len(r.sent) != 1 || r.sent[0] != (hostOrdered{actors.ErrBusy.Error()}) {
		t.Errorf("%+v", r.sent)
	}
}
