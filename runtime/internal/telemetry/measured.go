package telemetry

import (
	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/tracing"
)

// Measured is an actor of the master that counts by Coppice's instruments. Measure is called once,
// before the actor's first message, with the master's meter; nil is off.
type Measured interface{ Measure(m *tracing.Meter) }

// Measuring returns the function that makes an actor, and gives it the meter if it is [Measured].
func Measuring(m *tracing.Meter, produce func() actor.Actor) func() actor.Actor {
	return func() actor.Actor {
		a := produce()
		if c, ok := a.(Measured); ok {
			c.Measure(m)
		}
		return a
	}
}
