package listen

import (
	"net"

	"github.com/coppice-go/coppice/netactor"
)

// setOptions undoes what package net has set on a connection that it accepted. A failure, on a connection that has
// ended, is not worth a word.
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
			Enable: true, Idle: o.KeepAliveIdle, Interval: o.KeepAliveInterval, Count: o.KeepAliveCount, // 0 is package net's default, which is ours
		})
	}
}
