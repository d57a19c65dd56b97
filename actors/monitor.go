package actors

import "github.com/asynkron/protoactor-go/actor"

// Monitor watches pid and delivers its Down on the channel C of the result. It does not block. A
// name is bound to its holder of the moment the request arrives.
//
// To monitor comes in order after what the same goroutine sent to pid before; Down comes after all
// that the actor sent to this process.
//
// A monitor of a process that has ended, or of an actor in it, gets the exit reason of the process,
// as long as it is one of the latest 1024 of the tree that have ended. An older one, and an actor
// that has ended in a process that lives on, is ErrNoActor.
func (s *System) Monitor(pid *actor.PID) *Monitor {
	c := make(chan Down, 1)
	m := &Monitor{C: c, c: c, table: s.monitors, pid: pid}
	s.monitors.start(m)
	return m
}

// MonitorFrom watches pid for the actor of ctx, which gets a *Down as an ordinary message. The
// monitor ends with the actor. To be called from Receive.
func (s *System) MonitorFrom(ctx actor.Context, pid *actor.PID) *Monitor {
	m := s.monitorOf(ctx.Self(), pid)
	s.monitors.start(m)
	return m
}

// monitorOf returns a monitor whose Down an actor gets.
func (s *System) monitorOf(self, pid *actor.PID) *Monitor {
	m := &Monitor{table: s.monitors, pid: pid, onDown: func(d Down, _ endCause) { s.router.notify(self, &d) }}
	if s.isLocal(self) {
		m.owner = s.local.find(self.Id)
	}
	return m
}
