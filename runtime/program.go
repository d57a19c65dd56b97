package coppice

import (
	"context"

	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/supervisor"
)

// programStarter starts another program.
type programStarter struct {
	spawner
	shortages *retries
	crashes   *crashQueue
	environ   func() []string // of the current generation
	stops     *stopPlan
	spec      Process
	path      string

	inherited *inheritance // of the image of the master before this one
	sockets   *registry.Table
}

func (f programStarter) Start(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
	return f.start(ctx, int(inc.N))
}
