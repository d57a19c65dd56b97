package netactor

import (
	"net"

	"github.com/coppice-go/coppice/fdipc"
)

// PeerCredentials returns the credentials of the client of a Unix connection, as of its accept. It
// looks through wrappers that have a NetConn method, as *tls.Conn has. ok is false if the listener
// does not ask for credentials: see [Request].Credentials.
func PeerCredentials(c net.Conn) (who fdipc.Credentials, ok bool) {
	for c != nil {
		switch w := c.(type) {
		case interface {
			PeerCredentials() (fdipc.Credentials, bool)
		}:
			return w.PeerCredentials()
		case interface{ NetConn() net.Conn }:
			c = w.NetConn()
		default:
			return fdipc.Credentials{}, false
		}
	}
	return fdipc.Credentials{}, false
}
