package netactor

import (
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// lingering holds connections that were answered and turned away, until their clients have
// had time to read. To close one at once could destroy the answer on its way: a connection that
// is closed with unread data is reset.
type lingering struct {
	mu    sync.Mutex
	conns []lingerer // oldest first
	timer *time.Timer
	over  bool
}

// lingerer is one such connection.
type lingerer struct {
	h     *fdipc.Handle
	fd    int
	until time.Time
}

const (
	maxLingering = 64 // beyond it the oldest is closed early
	lingerFor    = 500 * time.Millisecond
)

func (l *lingering) add(h *fdipc.Handle, fd int) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, lingerer{h, fd, now.Add(lingerFor)})
	if l.over || len(l.conns) > maxLingering {
		l.conns[0].finish()
		l.conns = l.conns[1:]
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(lingerFor, l.expire)
	} else if len(l.conns) == 1 {
		l.timer.Reset(lingerFor)
	}
}

// expire closes those whose time is over.
func (l *lingering) expire() {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.conns) > 0 && !l.conns[0].until.After(now) {
		l.conns[0].finish()
		l.conns = l.conns[1:]
	}
	if len(l.conns) > 0 {
		l.timer.Reset(l.conns[0].until.Sub(now))
	}
}

// close closes all of them, and those that come later.
func (l *lingering) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for _, c := range l.conns {
		c.finish()
	}
	l.conns = nil
	if l.timer != nil {
		l.timer.Stop()
	}
}
