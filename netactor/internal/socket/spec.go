package socket

import "github.com/coppice-go/coppice/netactor"

// SocketSpec says which socket to open.
type SocketSpec struct {
	netactor.Request                      // resolved and valid
	Control          netactor.ControlFunc // the user's function, called before the bind; nil if there is none
	Joins            bool                 // it is a further socket of a ReusePort group
}
