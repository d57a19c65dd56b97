//go:build !linux

package httpdrain

import "net"

// input is not known on this system.
func input(net.Conn) (waiting bool, received uint64) { return false, 0 }
