package fdipc

import (
	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc/internal/lazyconn"
)

// Fd is the descriptor, for tests, which lend it.
func (s *Socket) Fd() int {
	fd, _ := lazyconn.Lend(&s.lazyConn)
	return fd
}

// ClaimTable returns the descriptor of a claim table, owned by the caller.
func ClaimTable() (int, error) {
	_, a, err := new(socketEnd).newTable(8)
	return a.fd, err
}

// Vanish takes a suspended Conn out of the process as an exec does: its descriptors are closed, and
// the peer sees none of it.
func Vanish(c *Conn) {
	c.mu.Lock()
	c.err = ErrClosed
	endpoints := c.endpoints
	c.mu.Unlock()
	c.hsTimer.Stop()
	for _, l := range c.lanes {
		l.fail(ErrClosed)
	}
	for _, r := range c.receivers {
		for i := range r.parts {
			t := &r.parts[i]
			t.finish()
			for _, h := range t.handles {
				_ = unix.Close(int(h.fd))
			}
			*t = partialFrame{}
		}
	}
	o := &c.offers
	o.mu.Lock()
	o.ended = true
	o.timer.Stop()
	for _, slot := range o.live {
		if x, ok := o.slots[slot].h.closeItem(); ok {
			x.Close()
		}
	}
	o.live = nil // a timer's poll may wait for callback
	o.mu.Unlock()
	c.ended.Store(true)
	close(c.ending)
	for _, e := range endpoints {
		_ = e.close()
	}
	c.standIn.close()
	c.peerTable.close()
	c.wg.Wait()
	o.callback.Unlock()
	close(c.done)
}
