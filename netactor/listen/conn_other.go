//go:build !linux

package listen

import (
	"net"

	"github.com/coppice-go/coppice/fdipc"
)

func wrapSocket(net.Conn, connRecord) countedConn { return nil }

func credentialsOf(net.Conn) *fdipc.Credentials { return nil }
