//go:build !linux

package coppice

import "net"

// readable is not known here.
func readable(net.Conn) bool { return false }
