//go:build !linux

package netactor

import "net"

func wrapSocket(net.Conn, served) servedConn { return nil }
