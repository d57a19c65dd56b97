package listen

import (
	"context"
	"maps"
	"net"
	"slices"
	"sync"
)

// openConns are the connections that a worker has open.
type openConns struct {
	mu      sync.Mutex
	all     map[*connRecord]net.Conn
	closing bool     // a new connection is closed at once
	none    noneLeft // of all
}

// add adds c, whose record is r.
func (o *openConns) add(c net.Conn, r *connRecord) {
	o.mu.Lock()
	over := o.closing
	o.all[r] = c
	o.mu.Unlock()
	if over {
		_ = c.Close() // the worker has ended: nothing serves it
	}
}

func (o *openConns) done(r *connRecord) {
	o.mu.Lock()
	delete(o.all, r)
	none := len(o.all) == 0
	o.mu.Unlock()
	if none {
		o.none.signal()
	}
}

func (o *openConns) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.all)
}

func (o *openConns) list() []net.Conn {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Values(o.all))
}

// closeAll closes all connections, and each that is added later.
func (o *openConns) closeAll() {
	o.mu.Lock()
	o.closing = true
	all := slices.Collect(maps.Values(o.all))
	o.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // its user gets an error
	}
}

// wait waits until no connection is open, or ctx ends.
func (o *openConns) wait(ctx context.Context) error { return o.none.await(ctx, o.count) }

// noneLeft wakes those that wait until a count is 0. It holds one token: the count may be 0.
type noneLeft chan struct{}

func newNoneLeft() noneLeft { return make(noneLeft, 1) }

func (n noneLeft) signal() {
	select {
	case n <- struct{}{}:
	default:
	}
}

// await waits until count returns 0, or ctx ends.
func (n noneLeft) await(ctx context.Context, count func() int) error {
	for count() > 0 {
		select {
		case <-n:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.signal() // for others that wait
	return nil
}

// isClosed reports whether c is closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
