package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// wire counts what servers do to a client's connections, in the bytes that arrive
// and not by what the gRPC library makes of them.
type wire struct {
	opened, told   atomic.Int64 // connections; those that had a GOAWAY
	ended          atomic.Int64 // by the server, without a GOAWAY before
	resets, broken atomic.Int64 // RST_STREAM frames; connections that TCP reset
}

func (w *wire) String() string {
	return fmt.Sprintf("%d connections: %d had GOAWAY, %d ended without, %d reset; %d RST_STREAM",
		w.opened.Load(), w.told.Load(), w.ended.Load(), w.broken.Load(), w.resets.Load())
}

func (w *wire) dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	w.opened.Add(1)
	return &counted{Conn: c, w: w}, nil
}

// counted is a connection of a wire.
type counted struct {
	net.Conn
	w *wire

	mu   sync.Mutex
	head []byte // of the next frame, as far as it has arrived
	rest int    // of the payload of the frame before
	told bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames(p[:n])
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		c.w.broken.Add(1)
	case errors.Is(err, io.EOF) && !c.told:
		c.w.ended.Add(1)
	}
	return n, err
}

// frames follows the frames of HTTP/2: 9 bytes, of which 3 are the payload's length and
// one is the kind (RFC 9113, section 4.1).
func (c *counted) frames(b []byte) {
	const size, rstStream, goAway = 9, 3, 7
	for len(b) > 0 {
		if skip := min(c.rest, len(b)); skip > 0 {
			c.rest -= skip
			b = b[skip:]
			continue
		}
		take := min(size-len(c.head), len(b))
		c.head, b = append(c.head, b[:take]...), b[take:]
		if len(c.head) < size {
			return
		}
		c.rest = int(c.head[0])<<16 | int(c.head[1])<<8 | int(c.head[2])
		switch kind := c.head[3]; {
		case kind == rstStream:
			c.w.resets.Add(1)
		case kind == goAway && !c.told: // gRPC sends two: "soon", and "now"
			c.told = true
			c.w.told.Add(1)
		}
		c.head = c.head[:0]
	}
}
