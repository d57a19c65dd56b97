package coppice

import (
	"log/slog"
	"sync"

	"github.com/coppice-go/coppice/actors"
)

// alone is what a Worker without a master has of its own.
type alone struct {
	once   sync.Once
	system *actors.System
	config sync.Once
}

// actorSystem returns a system that no other process is attached to, made by the first call.
func (a *alone) actorSystem() *actors.System {
	a.once.Do(func() {
		var err error
		if a.system, err = actors.NewSystem(actors.Config{Address: "alone"}); err != nil {
			panic(err) // the address is a good one
		}
	})
	return a.system
}

// noConfig says once that the worker has no configuration: what a worker makes of none may not
// tell.
func (a *alone) noConfig() {
	a.config.Do(func() {
		slog.Warn("coppice: Worker.Config is nil: this Worker has no master. runtimetest.Worker gives it one")
	})
}
