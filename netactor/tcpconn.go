package netactor

import (
	"errors"
	"fmt"
	"net"
)

// TCPConn returns the *net.TCPConn under a connection that a worker has accepted, under every
// policy. It looks through wrappers that have a NetConn method, as *tls.Conn has.
//
// It is for code that wants that type. Options, ReadFrom, SyscallConn and CloseWrite of c itself have
// the same effect.
//
// The *net.TCPConn stays c's. Both may be used, also at the same time. Close c, not the
// *net.TCPConn: c's Close counts the end of the connection, for drains, limits and LeastLoaded. A
// connection whose *net.TCPConn was asked for stays with its worker: it is never given to another
// one.
//
// The error wraps errors.ErrUnsupported if c is no TCP connection. It wraps ENOTCONN if the client
// has reset the connection already and the kernel has forgotten its address, which c itself knows;
// a connection that is closed, or a lack of descriptors, is an error too.
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
