package actors

import (
	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
)

// lastTarget caches the target and the type of the last message on a lane: those of the next
// message are most often the same. It belongs to the goroutine that reads the lane.
type lastTarget struct {
	bytes       []byte       // the target as it stood in the frame
	pid         *actor.PID   // what bytes stand for
	incarnation *incarnation // the actor pid, when it was last looked up; nil: there was none
	answer      actor.PID    // an ask that is answered, until the next frame: not to be kept
	types       codec.MessageReader
}

// target reads the target of a frame.
func (last *lastTarget) target(r *wire.Reader, here string) *actor.PID {
	if n := len(last.bytes); n > 0 && n <= len(r.B) && string(last.bytes) == string(r.B[:n]) {
		r.B = r.B[n:]
		return last.pid
	}
	before := r.B
	r.ReadPID(&last.answer, here, askID)
	if last.answer.Id == askID {
		return &last.answer
	}
	pid := &actor.PID{Address: last.answer.Address, Id: last.answer.Id, RequestId: last.answer.RequestId}
	if !r.Bad && pid.RequestId == 0 {
		last.bytes = append(last.bytes[:0], before[:len(before)-len(r.B)]...)
		last.pid, last.incarnation = pid, nil
	}
	return pid
}

// actor returns the live actor of this process that target names; nil: there is none.
func (last *lastTarget) actor(table *incarnationTable, target *actor.PID) *incarnation {
	if target != last.pid {
		return table.find(target.Id)
	}
	if last.incarnation == nil || last.incarnation.stale.Load() {
		last.incarnation = table.find(target.Id)
	}
	return last.incarnation
}
