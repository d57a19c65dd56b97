package main

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	coppice "github.com/coppice-go/coppice/runtime"
)

// server is a fasthttp server as Worker.Serve wants it.
//
// fasthttp's own shutdown closes idle connections at once, and a client that is writing its next
// request gets a reset. Under this one each connection moves to another worker once it is between
// two requests. Where none is left, or a connection cannot move, each further answer says
// "Connection: close"; the server shuts down when every connection has gone or idle is over.
type server struct {
	fasthttp.Server
	idle time.Duration
	open atomic.Int64 // connections
}

// drained returns a server that begins to drain when ctx, the worker's, ends.
func drained(ctx context.Context, idle time.Duration, handler fasthttp.RequestHandler) *server {
	s := &server{idle: idle}
	s.CloseOnShutdown = true
	s.IdleTimeout = time.Minute // by its deadlines a connection knows when the next request begins
	s.Handler = func(c *fasthttp.RequestCtx) {
		handler(c)
		if p, moves := c.Conn().(coppice.ParkableConn); ctx.Err() != nil && !(moves && p.Parks()) { // also when the drain has begun during the request
			c.SetConnectionClose()
		}
	}
	s.ConnState = func(c net.Conn, st fasthttp.ConnState) {
		p, moves := c.(coppice.ParkableConn)
		switch st {
		case fasthttp.StateNew:
			s.open.Add(1)
		case fasthttp.StateClosed, fasthttp.StateHijacked:
			s.open.Add(-1)
		}
		switch {
		case !moves:
		case st == fasthttp.StateNew || st == fasthttp.StateIdle:
			p.Idle()
		case st == fasthttp.StateHijacked:
			p.Stay()
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
