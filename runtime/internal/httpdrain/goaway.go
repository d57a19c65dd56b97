package httpdrain

import (
	"context"
	"crypto/tls"
	"maps"
	"net"
	"net/http"
)

// goaway ends the HTTP/2 connections of an *http.Server and leaves its HTTP/1 connections alone.
// Shutdown cannot do that: it sends GOAWAY and closes idle HTTP/1 connections together. So a second
// server, which never serves, sets HTTP/2 up, and the first gets the result as its TLSNextProto.
// Shutdown of the second server then sends GOAWAY on the connections of the first.
type goaway struct {
	of *http.Server // the second server; nil when the first has the user's HTTP/2 setup, or none
}

// separate returns a goaway for s, which must not serve yet. second is called with each
// connection that turns out to be HTTP/2, before anything is read from it.
func separate(s *http.Server, second func(net.Conn)) goaway {
	var g goaway
	next := maps.Clone(s.TLSNextProto) // the user's
	if next == nil {
		g.of = &http.Server{
			Protocols: s.Protocols, TLSConfig: s.TLSConfig.Clone(),
			IdleTimeout: s.IdleTimeout, ReadTimeout: s.ReadTimeout, // all that HTTP/2 takes from its server when it is set up; the rest it takes from s
		}
		_ = g.of.Serve(noListener{}) // sets HTTP/2 up; s itself returns an error for a wrong TLSConfig
		if next = g.of.TLSNextProto; next == nil {
			return goaway{}
		}
		s.RegisterOnShutdown(g.send) // for a user that calls s.Shutdown: then HTTP/2 connections get GOAWAY, as without a Drain
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

// send sends GOAWAY on every open HTTP/2 connection that has not had one.
func (g goaway) send() {
	if g.of == nil {
		return
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = g.of.Shutdown(now) // it has no connection to wait for
}

// noListener has no connections.
type noListener struct{ net.Listener }

func (noListener) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (noListener) Close() error              { return nil }
func (noListener) Addr() net.Addr            { return &net.TCPAddr{} }
