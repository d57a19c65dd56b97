package main

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// server is a fasthttp server as Worker.Serve wants it.
//
// fasthttp's own shutdown closes idle connections at once, and a client that is
// writing its next request gets a reset. So this one has each further answer say
// "Connection: close", and shuts down when every connection has gone or idle is over.
type server struct {
	fasthttp.Server
	idle time.Duration
	open atomic.Int64 // connections
}

// drained returns a server that begins to drain when ctx, the worker's, ends.
func drained(ctx context.Context, idle time.Duration, handler fasthttp.RequestHandler) *server {
	s := &server{idle: idle}
	s.CloseOnShutdown = true
	s.IdleTimeout = time.Minute
	s.Handler = func(c *fasthttp.RequestCtx) {
		handler(c)
		if ctx.Err() != nil { // also when the drain has begun during the request
			c.SetConnectionClose()
		}
	}
	s.ConnState = func(_ net.Conn, st fasthttp.ConnState) {
		switch st {
		case fasthttp.StateNew:
			s.open.Add(1)
		case fasthttp.StateClosed, fasthttp.StateHijacked:
			s.open.Add(-1)
		}
	}
	return s
}

// Shutdown waits for the open connections. The listener is closed already.
func (s *server) Shutdown(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, s.idle)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.open.Load() > 0 && wait.Err() == nil {
		select {
		case <-tick.C:
		case <-wait.Done():
		}
	}
	return s.ShutdownWithContext(ctx)
}
