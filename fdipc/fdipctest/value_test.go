package fdipctest_test

import (
	"net"
)

// conn is a connection that is only a Go value.
type conn struct{ net.Conn }

func (conn) Close() error { return nil }
