package coppice

import (
	"context"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/tracing"
)

// scale changes the size of a pool. It waits for a pool that is still starting, because not all its
// slots are known and its supervisor takes no others yet. why is for the event; it may be empty.
func (c *poolDriver) scale(ctx context.Context, to func(now int) int, why string) (err error) {
	began := time.Now()
	select {
	case <-c.supervisorSet:
	case <-c.gone:
		return fmt.Errorf("coppice: scale %s: %w", c.path, ErrStopping)
	case <-ctx.Done():
		return fmt.Errorf("coppice: scale %s: %w", c.path, ctx.Err())
	}
	before, size := c.sizes.resize(c.path, c.pool.Size, to)
	op := c.lifecycle.BeginOperation(tracing.SpanScale, c.path, nil, tracing.KeyScaleFrom.Int(before), tracing.KeyScaleTo.Int(size))
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
	c.note(pool.Spare, Event{Kind: PoolScaled, Size: size, Why: why, Took: time.Since(began), Err: err})
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
