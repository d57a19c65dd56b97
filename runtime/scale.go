package coppice

import (
	"context"
	"fmt"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// Scale changes the number of slots of a pool, 1 to 4096. path is the pool's path in the tree; ""
// is the only pool, or the first of several. New slots get the lowest free numbers. Pool.ScaleDown
// decides which slots go; their workers drain, and Scale does not wait for them. The size stays
// when the pool's supervisor restarts the pool. With a Pool.Autoscale that goes on from it, if it
// is within its bounds; otherwise the size stays.
//
// Scale returns when every new slot has its worker. A slot that does not come up is an error, and
// is removed. Scale waits for a reload of the pool that is under way. The end of ctx ends the wait,
// not the scaling. While the tree starts, in Config.Load for example, a pool that has not been
// started yet starts with that size, and Scale does not wait.
func (rt *Runtime) Scale(ctx context.Context, path string, size int) error {
	if size < 1 || size > maxPool {
		return &InvalidError{path, "Size", size, fmt.Sprintf("is not between 1 and %d", maxPool)}
	}
	c, err := rt.pools.find(path)
	if err != nil {
		if at := rt.root.pool(path); at != "" && !childproto.IsClosed(rt.up) {
			rt.sizes.set(at, size) // it starts later
			return nil
		}
		return err
	}
	return c.scale(ctx, func(int) int { return size }, "")
}

// scaleBy changes the number of slots by a difference; a pool keeps at least one slot.
func (rt *Runtime) scaleBy(ctx context.Context, path string, by int) error {
	c, err := rt.pools.find(path)
	if err != nil {
		return err
	}
	return c.scale(ctx, func(now int) int { return min(max(now+by, 1), maxPool) }, "")
}
