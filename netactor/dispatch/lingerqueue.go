package dispatch

import (
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// lingerQueue holds connections that were answered and turned away, until their clients have had
// time to read. Closing at once could destroy the answer: a connection that is closed with unread
// data is reset.
type lingerQueue struct {
	mu     sync.Mutex
	conns  []lingeringConn // oldest first
	timer  *time.Timer
	closed bool
}

// lingeringConn is one connection of a lingerQueue.
type lingeringConn struct {
	h     *fdipc.Handle
	fd    int
	until time.Time
}

const (
	maxLingering = 64 // above it the oldest is closed early
	lingerFor    = 500 * time.Millisecond
)

func (q *lingerQueue) add(h *fdipc.Handle, fd int) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.conns = append(q.conns, lingeringConn{h, fd, now.Add(lingerFor)})
	if q.closed || len(q.conns) > maxLingering {
		q.conns[0].finish()
		q.conns = q.conns[1:]
	}
	if q.timer == nil {
		q.timer = time.AfterFunc(lingerFor, q.expire)
	} else if len(q.conns) == 1 {
		q.timer.Reset(lingerFor)
	}
}

// expire closes the connections whose time is over.
func (q *lingerQueue) expire() {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.conns) > 0 && !q.conns[0].until.After(now) {
		q.conns[0].finish()
		q.conns = q.conns[1:]
	}
	if len(q.conns) > 0 {
		q.timer.Reset(q.conns[0].until.Sub(now))
	}
}

// close closes all connections, and each that is added later.
func (q *lingerQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for _, c := range q.conns {
		c.finish()
	}
	q.conns = nil
	if q.timer != nil {
		q.timer.Stop()
	}
}
