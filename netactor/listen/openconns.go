package listen

import (
	"context"
	"net"
	"sync"
)

// openConns are the connections that a worker has open.
type openConns struct {
	mu      sync.Mutex
	all     map[*connRecord]net.Conn
	closing bool          // what comes is closed
	none    chan struct{} // capacity 1: there may be none left
}

func newOpenConns() *openConns {
	return &openConns{all: map[*connRecord]net.Conn{}, none: make(chan struct{}, 1)}
}

// add counts c, of which s is kept.
func (o *openConns) add(c net.Conn, r *connRecord) {
	o.mu.Lock()
	over := o.closing
	o.all[r] = c
	o.mu.Unlock()
	if over {
		_ = c.Close() // nobody is there to serve it
	}
}

func (o *openConns) done(r *connRecord) {
	o.mu.Lock()
	delete(o.all, r)
	none := len(o.all) == 0
	o.mu.Unlock()
	if none {
		o.signal()
	}
}

func (o *openConns) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.all)
}

// closeAll closes all of them, and what comes from now on.
func (o *openConns) closeAll() {
	o.mu.Lock()
	o.closing = true
	all := make([]net.Conn, 0, len(o.all))
	for _, c := range o.all {
		all = append(all, c)
	}
	o.mu.Unlock()
	for _, c := range all {
		_ = c.Close() // whoever uses it is told
	}
}

func (o *openConns) signal() {
	select {
	case o.none <- struct{}{}:
	default:
	}
}

// wait waits until none is open, or ctx ends.
func (o *openConns) wait(ctx context.Context) error {
	for o.count() > 0 {
		select {
		case <-o.none:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	o.signal() // for others that wait
	return nil
}
