package netactor

import (
	"context"
	"sync/atomic"
)

// gauge counts open connections.
type gauge struct {
	n    atomic.Int64
	zero chan struct{} // capacity 1: n may have come to 0
}

func (g *gauge) done() {
	if g.n.Add(-1) == 0 {
		g.signal()
	}
}

func (g *gauge) signal() {
	select {
	case g.zero <- struct{}{}:
	default:
	}
}

func (g *gauge) wait(ctx context.Context) error {
	for g.n.Load() > 0 {
		select {
		case <-g.zero:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.signal() // for others that wait
	return nil
}
