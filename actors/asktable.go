package actors

import (
	"context"
	"math"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// askTable owns the asks of this process that wait for their answers. The number of an ask is the
// RequestId of the PID that it is answered to. Requests to the master about names are in it too.
type askTable struct {
	address string
	calls   fdipc.Calls[askNote, any]

	// giveUp is called when an ask ends without an answer that the process with an address still
	// has: it may forget it.
	giveUp func(address string, ask *actor.PID)
}

// pendingAsk is an ask that waits for its answer.
type pendingAsk = fdipc.Call[askNote, any]

// askNote is what is noted about an ask.
type askNote struct {
	id     uint32
	target *actor.PID    // the actor that was asked
	at     string        // the process that has the message; "": none
	onWay  *atomic.Int32 // counts the asks to that process; nil: this one is not counted
}

// leave takes the ask out of the count of those to its process.
func (n *askNote) leave() {
	if n.onWay != nil {
		n.onWay.Add(-1)
		n.onWay = nil
	}
}

func newAskTable(address string, giveUp func(address string, ask *actor.PID)) *askTable {
	return &askTable{address: address, calls: fdipc.Calls[askNote, any]{Limit: math.MaxInt32}, giveUp: giveUp}
}

// begin makes an ask of target. It comes before the message is sent, so that the answer finds it.
func (t *askTable) begin(target *actor.PID) (*pendingAsk, error) {
	return t.calls.Begin(askNote{target: target})
}

// pid returns the PID that an ask is answered to.
func (t *askTable) pid(id uint32) *actor.PID { return askPID(t.address, id) }

func askPID(address string, id uint32) *actor.PID {
	return &actor.PID{Address: address, Id: askID, RequestId: id}
}

// sentTo notes the process that an ask goes to. It comes before the message is sent, so that the
// end of that process finds the ask. onWay, if it is not nil, counts the asks to that process.
func (t *askTable) sentTo(id uint32, address string, onWay *atomic.Int32) {
	t.calls.Update(uint64(id), func(n *askNote) {
		n.id = id
		if n.at = address; onWay != nil && n.onWay == nil {
			n.onWay = onWay
			onWay.Add(1)
		}
	})
}

// wait returns the answer. When ctx ends first it gives the ask up and returns its cause.
func (t *askTable) wait(ctx context.Context, ask *pendingAsk) (any, error) {
	over := ctx.Done()
	if over == nil { // a receive costs a fourth of a select
		<-ask.Done()
		return ask.Result()
	}
	select {
	case <-ask.Done():
		return ask.Result()
	case <-over:
	}
	if !t.cancel(ask) { // the answer came in the same moment
		<-ask.Done()
		return ask.Result()
	}
	if at := ask.About.at; at != "" {
		t.giveUp(at, t.pid(uint32(ask.ID)))
	}
	return nil, context.Cause(ctx)
}

// cancel ends an ask without a result. It returns false if the ask has ended.
func (t *askTable) cancel(ask *pendingAsk) bool {
	if !ask.Cancel() {
		return false
	}
	ask.About.leave()
	return true
}

// finish ends the ask with a number. It returns false if no such ask waits.
func (t *askTable) finish(id uint32, answer any, err error) bool {
	ask := t.calls.Take(uint64(id))
	if ask == nil {
		return false
	}
	ask.About.leave()
	ask.Finish(answer, err)
	return true
}

// failAt fails the asks that are at a process.
func (t *askTable) failAt(address string, reason supervisor.Reason) {
	t.calls.Fail(func(n *askNote) error {
		if n.at != address {
			return nil
		}
		n.leave()
		return downError(n.target, reason)
	})
}

func (t *askTable) failAll(err error) {
	t.calls.Fail(func(n *askNote) error {
		n.leave()
		return err
	})
}

// askedAt returns the targets of the asks that are at a process.
func (t *askTable) askedAt(address string) (targets []*actor.PID) {
	t.calls.Fail(func(n *askNote) error {
		if n.at == address {
			targets = append(targets, n.target)
		}
		return nil // it goes on
	})
	return targets
}

// target returns the actor that was asked; nil: the ask has ended.
func (t *askTable) target(id uint32) (target *actor.PID) {
	t.calls.Update(uint64(id), func(n *askNote) { target = n.target })
	return target
}

// has reports whether an ask waits.
func (t *askTable) has(id uint32) bool { return t.calls.Update(uint64(id), nil) }

// askReplies is the actor.Process behind the PIDs that asks are answered to.
type askReplies struct {
	answer func(pid *actor.PID, message any)
}

func (p askReplies) SendUserMessage(pid *actor.PID, message any) { p.answer(pid, message) }
func (p askReplies) SendSystemMessage(*actor.PID, any)           {}
func (p askReplies) Stop(*actor.PID)                             {}
