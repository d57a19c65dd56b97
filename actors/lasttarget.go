package actors

import (
	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// lastTarget is what the last message on a lane was for and of, which is what the next one is
// for and of most often. One goroutine has it, that which reads the lane.
type lastTarget struct {
	bytes       []byte       // of the target in the frame
	pid         *actor.PID   // what they mean
	incarnation *incarnation // who that was when it was last looked up; nil: nobody
	types       codec.MessageReader
}

// lastTarget returns what the last message on a lane of the Conn was.
func (p *peer) lastTarget(lane fdipc.Lane) *lastTarget {
	if int(lane) < len(p.lastTargets) {
		return &p.lastTargets[lane]
	}
	return new(lastTarget)
}

// target reads the target of a frame.
func (last *lastTarget) target(r *wire.Reader, here string) *actor.PID {
	if n := len(last.bytes); n > 0 && n <= len(r.B) && string(last.bytes) == string(r.B[:n]) {
		r.B = r.B[n:]
		return last.pid
	}
	before := r.B
	pid := r.PID(here)
	if !r.Bad && pid.RequestId == 0 { // not the answer to an ask
		last.bytes = append(last.bytes[:0], before[:len(before)-len(r.B)]...)
		last.pid, last.incarnation = pid, nil
	}
	return pid
}

// actor returns the live actor of this process that target names; nil: there is none.
func (last *lastTarget) actor(s *System, target *actor.PID) *incarnation {
	if target != last.pid {
		return s.incarnations.find(target.Id)
	}
	if last.incarnation == nil || last.incarnation.stale.Load() {
		last.incarnation = s.incarnations.find(target.Id)
	}
	return last.incarnation
}
