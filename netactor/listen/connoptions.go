package listen

import (
	"net"

	"github.com/coppice-go/coppice/netactor"
)

// setOptions replaces the options that package net set on a connection that it accepted. It ignores
// errors: they mean that the connection has ended.
func setOptions(c net.Conn, o netactor.SocketOptions) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if o.Delay {
		_ = tcp.SetNoDelay(false)
	}
	if o.KeepAliveIdle < 0 {
		_ = tcp.SetKeepAlive(false)
	} else if o.KeepAliveIdle+o.KeepAliveInterval > 0 || o.KeepAliveCount > 0 {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: o.KeepAliveIdle, Interval: o.KeepAliveInterval, Count: o.KeepAliveCount, // 0 is package net's default, and ours
		})
	}
}
