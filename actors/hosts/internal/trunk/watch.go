package trunk

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// watched is a connection that gives up when nothing came for a time, or nothing was taken.
type watched struct {
	net.Conn
	silence time.Duration
	began   time.Time
	heard   atomic.Int64 // when something came last, since began

	mu       sync.Mutex
	deadline time.Time // of reads
	final    time.Time // of all, once the end is near
}

func newWatched(c net.Conn, silence time.Duration) *watched {
	return &watched{Conn: c, silence: silence, began: time.Now()}
}

// Read reads. A process that was stopped for a while, and not the peer, finds the deadline over
// when it goes on: then it looks once more.
func (c *watched) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if n > 0 {
			c.heard.Store(int64(time.Since(c.began)))
		}
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !c.late() {
			return n, err
		}
	}
}

// start ends the bound that last has set for the handshake.
func (c *watched) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.final = time.Time{}
	c.Conn.SetDeadline(time.Time{})
	c.heard.Store(int64(time.Since(c.began)))
}

// late reports whether the deadline was seen long after it was over, and sets one more.
func (c *watched) late() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.deadline.IsZero() || !c.final.IsZero() || now.Sub(c.deadline) < c.silence/4 {
		return false
	}
	c.deadline = now.Add(c.silence / 4)
	c.Conn.SetReadDeadline(c.deadline)
	return true
}

// Write writes what the peer takes in time: each chunk within the silence.
func (c *watched) Write(b []byte) (n int, err error) {
	for err == nil && n < len(b) {
		c.mu.Lock()
		d := time.Now().Add(c.silence)
		if !c.final.IsZero() && d.After(c.final) {
			d = c.final
		}
		c.Conn.SetWriteDeadline(d)
		c.mu.Unlock()
		var m int
		m, err = c.Conn.Write(b[n:min(len(b), n+writeChunk)])
		n += m
	}
	return n, err
}

// extend has reads wait until the silence is over, from the last byte that came.
func (c *watched) extend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final.IsZero() {
		c.deadline = c.began.Add(time.Duration(c.heard.Load()) + c.silence)
		c.Conn.SetReadDeadline(c.deadline)
	}
}

// last bounds all that is still read and written.
func (c *watched) last(d time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.final = d
	c.Conn.SetDeadline(d)
}

// silent returns how long nothing has come.
func (c *watched) silent() time.Duration {
	return time.Since(c.began) - time.Duration(c.heard.Load())
}

// abort has Close drop what the kernel has not sent, which a silent peer would have it keep for
// minutes.
func (c *watched) abort() {
	if tcp, ok := c.Conn.(interface{ SetLinger(sec int) error }); ok {
		tcp.SetLinger(0) //nolint:errcheck // it is about to be closed
	}
}

// closeWrite says that nothing more comes, if the connection can say that, or ends it.
func (c *watched) closeWrite() {
	if tcp, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		tcp.CloseWrite() //nolint:errcheck // the read that follows ends too
	} else {
		c.Conn.Close()
	}
}
