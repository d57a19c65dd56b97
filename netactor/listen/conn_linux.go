package listen

import (
	"io"
	"net"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/tracing"
)

// wrapSocket is wrapper for a connection that was handed over; nil if c is none.
func wrapSocket(c net.Conn, r connRecord) countedConn {
	switch c := c.(type) {
	case *fdipc.Socket:
		w := &socketConn{Socket: c, connRecord: r}
		w.parkable.conn, w.parkable.counted = c, &w.connRecord
		return w
	case *fdipc.UnixSocket:
		w := &unixSocketConn{UnixSocket: c, connRecord: r}
		w.parkable.conn, w.parkable.counted = c, &w.connRecord
		return w
	}
	return nil
}

type socketConn struct {
	*fdipc.Socket
	connRecord
	parkable
}

// ReadFrom writes what it reads from r, until its end.
func (c *socketConn) ReadFrom(r io.Reader) (int64, error) {
	if c.mode.Load() == hasLeft {
		return 0, c.gone("write")
	}
	return c.Socket.ReadFrom(r)
}

// WriteTo writes what it reads from the connection to w, until the end. The connection stays here.
func (c *socketConn) WriteTo(w io.Writer) (int64, error) {
	if err := c.staysFor("read"); err != nil {
		return 0, err
	}
	return c.Socket.WriteTo(w)
}

type unixSocketConn struct {
	*fdipc.UnixSocket
	connRecord
	parkable
}

// ReadMsgUnix reads a message and its control data. The connection stays here.
func (c *unixSocketConn) ReadMsgUnix(b, oob []byte) (n, oobn, flags int, addr *net.UnixAddr, err error) {
	if err := c.staysFor("read"); err != nil {
		return 0, 0, 0, nil, err
	}
	return c.UnixSocket.ReadMsgUnix(b, oob)
}

// TCPConn hands the connection out as package net's: see [netactor.TCPConn], which calls this one.
// The connection stays here.
func (c *socketConn) TCPConn() (*net.TCPConn, error) {
	if err := c.staysFor("tcpconn"); err != nil {
		return nil, err
	}
	return c.Socket.TCPConn()
}

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

	_ netactor.ParkableConn = (*socketConn)(nil)
	_ netactor.ParkableConn = (*unixSocketConn)(nil)
)
