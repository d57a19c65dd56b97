package coppice

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/http"
)

// goaway ends the HTTP/2 connections of an *http.Server and leaves its HTTP/1
// connections alone, which Shutdown cannot: it sends GOAWAY and closes idle HTTP/1
// connections in one. So what serves HTTP/2 is made by a second server, which never
// serves, and the first is given it as its TLSNextProto. Shutdown of the second is
// then GOAWAY to the connections of the first.
type goaway struct {
	of *http.Server // the second; nil when the first has an HTTP/2 of the user's own, or none
}

// separate makes a goaway for s, which must not serve yet. second is called with each
// connection that turns out to be HTTP/2, before it is read from.
func separate(s *http.Server, second func(net.Conn)) goaway {
	var g goaway
	next := maps.Clone(s.TLSNextProto) // the user's
	if next == nil {
		g.of = &http.Server{
			Protocols: s.Protocols, TLSConfig: s.TLSConfig.Clone(),
			IdleTimeout: s.IdleTimeout, ReadTimeout: s.ReadTimeout, // all that HTTP/2 takes when it is set up; the rest it asks s for
		}
		_ = g.of.Serve(noListener{}) // sets HTTP/2 up; what is wrong with TLSConfig is told by s itself
		if next = g.of.TLSNextProto; next == nil {
			return goaway{}
		}
		s.RegisterOnShutdown(g.send) // as if it were its own, for who calls Shutdown himself
	}
	for proto, serve := range next {
		next[proto] = func(s *http.Server, c *tls.Conn, h http.Handler) {
			conn := net.Conn(c)
			// Without TLS the connection is handed over inside of a tls.Conn.
			if u, ok := c.NetConn().(interface{ UnencryptedNetConn() net.Conn }); ok {
				conn = u.UnencryptedNetConn()
			}
			second(conn)
			serve(s, c, h)
		}
	}
	s.TLSNextProto = next
	return g
}

// send sends GOAWAY on every HTTP/2 connection that has not had one: those that
// are there now.
func (g goaway) send() {
	if g.of == nil {
		return
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.of.Shutdown(now) // it has no connection that it could wait for
}

// noListener has no connections.
type noListener struct{ net.Listener }

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }
func (noListener) Addr() net.Addr            { return &net.TCPAddr{} }
