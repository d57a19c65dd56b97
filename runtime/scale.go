package coppice

import (
	"context"
	"fmt"
)

// Scale gives a pool another number of slots, 1 to 4096, by its path in the tree; ""
// is the only pool, or the first of several. New slots get the lowest numbers that are
// free. Which go is Pool.ScaleDown's to say; their workers drain, and are not waited for. The
// size stays when the pool is restarted by its supervisor.
//
// Scale returns when every new slot has its worker: one that does not come up is an
// error, and is not kept. It waits for a reload of the pool that goes on. The end of ctx
// ends the wait, not the scaling.
func (rt *Runtime) Scale(ctx context.Context, path string, size int) error {
	c, err := rt.pools.find(path)
	if err != nil {
		return err
	}
	if size < 1 || size > maxPool {
		return &InvalidError{c.path, "Size", size, fmt.Sprintf("is not between 1 and %d", maxPool)}
	}
	return c.scale(ctx, func(int) int { return size })
}

// scaleBy is Scale by a difference; a pool keeps at least one slot.
func (rt *Runtime) scaleBy(ctx context.Context, path string, by int) error {
	c, err := rt.pools.find(path)
	if err != nil {
		return err
	}
	return c.scale(ctx, func(now int) int { return min(max(now+by, 1), maxPool) })
}
