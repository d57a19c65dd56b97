package listen

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// wrapSocket is wrapper for a connection that was handed over; nil if c is none.
func wrapSocket(c net.Conn, r connRecord) countedConn {
	switch c := c.(type) {
	case *fdipc.Socket:
		return &socketConn{Socket: c, connRecord: r}
	case *fdipc.UnixSocket:
		return &unixSocketConn{UnixSocket: c, connRecord: r}
	}
	return nil
}

type unixSocketConn struct {
	*fdipc.UnixSocket
	connRecord
	once closeOnce
}

// Close closes the connection and counts its end.
func (c *unixSocketConn) Close() error { return c.once.close(c.UnixSocket, &c.connRecord) }

// NetConn returns the connection without the counting.
func (c *unixSocketConn) NetConn() net.Conn { return c.UnixSocket }

type socketConn struct {
	*fdipc.Socket
	connRecord
	once closeOnce
}

// Close closes the connection and counts its end.
func (c *socketConn) Close() error { return c.once.close(c.Socket, &c.connRecord) }

// NetConn returns the connection without the counting.
func (c *socketConn) NetConn() net.Conn { return c.Socket }

// TCPConn hands the connection out as package net's: see [netactor.TCPConn], which calls this one.
func (c *socketConn) TCPConn() (*net.TCPConn, error) { return c.Socket.TCPConn() }

// credentialsOf asks the kernel for a client's credentials. It returns nil if c is no Unix socket.
func credentialsOf(c net.Conn) (who *fdipc.Credentials) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil
	}
	rc, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	_ = rc.Control(func(fd uintptr) {
		if c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			who = &fdipc.Credentials{PID: int(c.Pid), UID: int(c.Uid), GID: int(c.Gid)}
		}
	})
	return who
}

var (
	_ tracing.TracedConn = (*socketConn)(nil)
	_ tracing.TracedConn = (*unixSocketConn)(nil)
)
