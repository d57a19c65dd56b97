package actors

import (
	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
)

// latest is what the last message on a lane was for and of, which is what the next one is
// for and of most often. One goroutine has it, that which reads the lane.
type latest struct {
	bytes []byte     // of the target in the frame
	pid   *actor.PID // what they mean
	cell  *cell      // who that was when it was last looked up; nil: nobody
	types messageReader
}

// last returns what the last message on a lane of the Conn was.
func (l *link) last(lane fdipc.Lane) *latest {
	if int(lane) < len(l.latest) {
		return &l.latest[lane]
	}
	return new(latest)
}

// target reads the target of a frame.
func (last *latest) target(r *reader, here string) *actor.PID {
	if n := len(last.bytes); n > 0 && n <= len(r.b) && string(last.bytes) == string(r.b[:n]) {
		r.b = r.b[n:]
		return last.pid
	}
	before := r.b
	pid := r.pid(here)
	if !r.bad && pid.RequestId == 0 { // not the answer to an ask
		last.bytes = append(last.bytes[:0], before[:len(before)-len(r.b)]...)
		last.pid, last.cell = pid, nil
	}
	return pid
}

// actor returns the live actor of this process that target names; nil: there is none.
func (last *latest) actor(s *System, target *actor.PID) *cell {
	if target != last.pid {
		return s.cells.find(target.Id)
	}
	if last.cell == nil || last.cell.over.Load() {
		last.cell = s.cells.find(target.Id)
	}
	return last.cell
}
