package coppice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

func (cs *pools) find(path string) (*poolDriver, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	i := slices.IndexFunc(cs.all, func(c *poolDriver) bool {
		return c.kind.ofConfig && (path == "" || c.path == path)
	})
	if i < 0 {
		return nil, fmt.Errorf("%w: %q", ErrNoPool, path)
	}
	return cs.all[i], nil
}

// size returns how many slots a pool is to have.
func (cs *pools) size(c *poolDriver) int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.sizeLocked(c)
}

func (cs *pools) sizeLocked(c *poolDriver) int {
	if n, ok := cs.sizes[c.path]; ok {
		return n
	}
	return c.pool.Size
}

// resize changes how many slots a pool is to have, and returns the number before and after. Of two
// concurrent calls the second starts from the result of the first.
func (cs *pools) resize(c *poolDriver, to func(now int) int) (before, size int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	before = cs.sizeLocked(c)
	if cs.sizes == nil {
		cs.sizes = map[string]int{}
	}
	size = to(before)
	cs.sizes[c.path] = size
	return before, size
}

// setSize corrects what resize has noted, when not every slot came up.
func (cs *pools) setSize(c *poolDriver, size int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.sizes[c.path] = size
}

// scale changes the size of a pool. It waits for a pool that is still starting, because not all its
// slots are known and its supervisor takes no others yet.
func (c *poolDriver) scale(ctx context.Context, to func(now int) int) (err error) {
	began := time.Now()
	select {
	case <-c.supervisorSet:
	case <-c.gone:
		return fmt.Errorf("coppice: scale %s: %w", c.path, ErrStopping)
	case <-ctx.Done():
		return fmt.Errorf("coppice: scale %s: %w", c.path, ctx.Err())
	}
	before, size := c.pools.resize(c, to)
	op := c.lifecycle.BeginOperation(tracing.SpanScale, c.path, tracing.KeyScaleFrom.Int(before), tracing.KeyScaleTo.Int(size))
	defer func() { op.End(err) }()
	q := pool.Event{Kind: pool.Scale, Size: size}
	if c.pool.ScaleDown == LeastBusyFirst {
		q.Busy = c.busySlots(ctx)
	}
	e, ok := c.query(ctx, q, pool.Scaled, nil)
	if !ok {
		return fmt.Errorf("coppice: scale %s: %w", c.path, ctx.Err())
	}
	switch e.Result {
	case pool.Failed:
		c.mu.Lock()
		err = fmt.Errorf("coppice: scale %s: slot %d: %w", c.path, e.Slot, c.scaleErr)
		c.mu.Unlock()
	case pool.Stopped:
		err = fmt.Errorf("coppice: scale %s: %w", c.path, ErrStopping)
	case pool.Done, pool.Cancelled:
	}
	c.note(pool.Spare, PoolEvent{Kind: PoolScaled, Size: size, Took: time.Since(began), Err: err})
	return err
}

// busySlots counts the connections that the listener process has handed to the workers of each slot
// and that are still open.
func (c *poolDriver) busySlots(ctx context.Context) map[int]int {
	busy := map[int]int{}
	stats, err := c.children.sockets.Stats(ctx)
	if err != nil {
		c.log.Warn("it is not known which workers are busy", "err", err)
		return busy
	}
	byID := map[uint64]int{}
	c.mu.Lock()
	for slot, s := range c.slots {
		if s.worker != nil {
			byID[uint64(s.worker.hello.ID)] = slot
		}
	}
	c.mu.Unlock()
	for _, l := range stats {
		for _, w := range l.Workers {
			if slot, ok := byID[w.Worker.ID]; ok {
				busy[slot] += w.Counts.Open() + w.Counts.Offered // claims are reported with a delay
			}
		}
	}
	return busy
}

// add makes the supervisor start a new slot.
func (c *poolDriver) add(slot int) {
	_, err := c.sup.StartChild(c.alive, c.slotSpec(slot))
	if err != nil {
		c.mu.Lock()
		c.scaleErr = err
		c.mu.Unlock()
	}
	c.step(pool.Event{Kind: pool.Added, Slot: slot, Failed: err != nil})
}

// remove makes the supervisor stop and delete a slot. Its worker has left the slot by then.
func (c *poolDriver) remove(slot int) {
	id := c.slotID(slot)
	for {
		err := c.sup.TerminateChild(c.alive, id)
		if err == nil {
			err = c.sup.DeleteChild(c.alive, id)
		}
		// A restart of its group may have come between the two.
		if !errors.Is(err, supervisor.ErrRunning) && !errors.Is(err, supervisor.ErrRestarting) {
			break
		}
	}
	c.step(pool.Event{Kind: pool.Removed, Slot: slot})
}
