package coppice

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// spareSlot is what a worker knows of its place, from its own side. A spare has none until
// it is appointed, and nobody has one while Pool.Prepare runs.
type spareSlot struct {
	current  atomic.Pointer[childproto.AssignFrame] // nil while there is none
	assigned chan childproto.AssignFrame            // one value: the handler's to warmUp
	served   atomic.Int64                           // requests
}

// awaitSlot does what comes before a worker has its place, and waits until it has one.
func (c *child) awaitSlot() error {
	if f := c.pool.Prepare; f != nil {
		if err := f(c.ctx, &Worker{c}); err != nil {
			return fmt.Errorf("coppice: warm: %w", err)
		}
	}
	w := c.identity
	a := childproto.AssignFrame{Name: w.Name, Slot: w.Slot, Incarnation: w.Incarnation, Requests: w.Requests}
	if w.Slot == pool.Spare {
		if err := c.conn.Send(c.ctx, childproto.NewFrame(childproto.FrameSpareReady, struct{}{})); err != nil {
			return fmt.Errorf("coppice: warm: %w", err)
		}
		select {
		case a = <-c.spare.assigned:
		case <-c.ctx.Done():
			return context.Canceled // asked to stop: an orderly end
		}
	}
	c.spare.current.Store(&a)
	return nil
}

// assign takes a spare's place from a frame of the master's.
func (c *child) assign(a childproto.AssignFrame) {
	select {
	case c.spare.assigned <- a:
	default: // a second one changes nothing
	}
}

// requireSlot refuses what needs a place while there is none.
func (c *child) requireSlot(op string) error {
	if c.spare.current.Load() == nil {
		return fmt.Errorf("%w in Pool.Prepare: %s", ErrUnsupported, op)
	}
	return nil
}

// countRequests counts requests, and tells the master once when the worker has had its share.
func (c *child) countRequests(n int) {
	a := c.spare.current.Load()
	if a == nil || a.Requests == 0 {
		return
	}
	if now := c.spare.served.Add(int64(n)); now >= a.Requests && now-int64(n) < a.Requests {
		_ = c.conn.TrySend(childproto.NewFrame(childproto.FrameRequestsSpent, struct{}{})) // a master that is gone recycles nobody
	}
}
