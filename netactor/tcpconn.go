package netactor

import (
	"errors"
	"fmt"
	"net"
)

// TCPConn returns the *net.TCPConn under a connection that a worker has accepted, under every
// policy. It looks through wrappers that have a NetConn method, as *tls.Conn has.
//
// It is for what c does not have: code that wants that type. Whatever the worker can do with c
// itself (options, ReadFrom, SyscallConn, CloseWrite) has the same effect there, and costs the
// worker nothing more.
//
// The *net.TCPConn stays c's. Both may be used, also at the same time. Close c, not the
// *net.TCPConn: c's Close counts the end of the connection, for drains, limits and LeastLoaded. A
// connection whose *net.TCPConn was asked for stays with its worker: at a drain it is not given to
// another one.
//
// The error wraps errors.ErrUnsupported if c is no TCP connection, net.ErrClosed if c is closed, and
// ENOTCONN if the client has reset the connection already, so that the kernel has forgotten its
// address; c itself knows it.
func TCPConn(c net.Conn) (*net.TCPConn, error) {
	for at := c; at != nil; {
		switch w := at.(type) {
		case *net.TCPConn:
			return w, nil
		case interface{ TCPConn() (*net.TCPConn, error) }:
			return w.TCPConn()
		case interface{ NetConn() net.Conn }:
			at = w.NetConn()
		default:
			at = nil
		}
	}
	return nil, fmt.Errorf("netactor: TCPConn of %T: %w", c, errors.ErrUnsupported)
}
