//go:build !linux

package httpdrain

import "net"

// readable is not known on this system.
func readable(net.Conn) bool { return false }
