package coppice

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// post is what a worker knows of its place, from its own side. A spare has none until
// it is appointed, and nobody has one while Pool.Warm runs.
type post struct {
	now       atomic.Pointer[appointment] // nil while there is none
	appointed chan appointment            // one value: the handler's to warmUp
	served    atomic.Int64                // requests
}

// warmUp does what comes before a worker has its place, and waits until it has one.
func (c *child) warmUp() error {
	if f := c.pool.Warm; f != nil {
		if err := f(c.ctx, &Worker{c}); err != nil {
			return fmt.Errorf("coppice: warm: %w", err)
		}
	}
	w := c.welcome
	a := appointment{Name: w.Name, Slot: w.Slot, Incarnation: w.Incarnation, Requests: w.Requests}
	if w.Slot == pool.Spare {
		if err := c.conn.Send(c.ctx, control(frameWarm, struct{}{})); err != nil {
			return fmt.Errorf("coppice: warm: %w", err)
		}
		select {
		case a = <-c.post.appointed:
		case <-c.ctx.Done():
			return context.Canceled // asked to stop: an orderly end
		}
	}
	c.post.now.Store(&a)
	return nil
}

// appoint takes a spare's place from a frame of the master's.
func (c *child) appoint(a appointment) {
	select {
	case c.post.appointed <- a:
	default: // a second one changes nothing
	}
}

// placed refuses what needs a place while there is none.
func (c *child) placed(op string) error {
	if c.post.now.Load() == nil {
		return fmt.Errorf("%w in Pool.Warm: %s", ErrUnsupported, op)
	}
	return nil
}

// count counts requests, and tells the master once when the worker has had its share.
func (c *child) count(n int) {
	a := c.post.now.Load()
	if a == nil || a.Requests == 0 {
		return
	}
	if now := c.post.served.Add(int64(n)); now >= a.Requests && now-int64(n) < a.Requests {
		_ = c.conn.TrySend(control(frameSpent, struct{}{})) // a master that is gone recycles nobody
	}
}
