package netactor

import (
	"net"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// wrapSocket is wrap for a connection that was handed over; nil if c is not one.
func wrapSocket(c net.Conn, s served) servedConn {
	if c, ok := c.(*fdipc.Socket); ok {
		return &socketConn{Socket: c, served: s}
	}
	return nil
}

type socketConn struct {
	*fdipc.Socket
	served
	once closeOnce
}

// Close closes the connection and counts its end.
func (c *socketConn) Close() error { return c.once.close(c.Socket, &c.served) }

// NetConn returns the connection without the counting.
func (c *socketConn) NetConn() net.Conn { return c.Socket }

var _ tracing.Conn = (*socketConn)(nil)
