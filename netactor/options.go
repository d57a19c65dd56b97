package netactor

import (
	"errors"
	"fmt"
	"time"
)

// SocketOptions are options of a listening socket. The connections of the socket have the options
// marked "connections too", under every policy. The zero value is what package net sets. A Unix
// socket takes none; a UDP socket takes the buffers, FreeBind and Transparent. On a socket that
// comes from outside (Request.FD) they hold for clients that connect after it was opened here.
// [Functions].Control can set other options.
//
// If the kernel refuses an option, the Listen fails with an error that names the field. Off Linux
// every option is refused.
type SocketOptions struct {
	// Keep-alive (connections too): after KeepAliveIdle without data the kernel sends a probe, then
	// one each KeepAliveInterval. The connection ends after KeepAliveCount probes without an
	// answer. 0 means 15 s, 15 s and 9. Whole seconds up to 32767, rounded up; a count up to 127. A
	// negative KeepAliveIdle means no keep-alive.
	KeepAliveIdle     time.Duration `json:",omitzero"`
	KeepAliveInterval time.Duration `json:",omitzero"`
	KeepAliveCount    int           `json:",omitzero"`

	// Delay (connections too) leaves Nagle's algorithm on: TCP_NODELAY is not set.
	Delay bool `json:",omitzero"`

	// ReceiveBuffer and SendBuffer (connections too) are SO_RCVBUF and SO_SNDBUF in bytes; 0 leaves
	// the size to the kernel, which then adapts it. The kernel uses at most net.core.rmem_max and
	// wmem_max, without an error, and getsockopt returns twice the size: socket(7).
	ReceiveBuffer int `json:",omitzero"`
	SendBuffer    int `json:",omitzero"`

	// DeferAccept is TCP_DEFER_ACCEPT: for about this time a connection is not accepted before its
	// client has sent data. Whole seconds up to 600, rounded up; 0 is off.
	DeferAccept time.Duration `json:",omitzero"`

	// FastOpen is TCP_FASTOPEN: the number of connections that may be open with the client's data
	// in its first packet. net.ipv4.tcp_fastopen must allow it for servers (2). 0 is off.
	FastOpen int `json:",omitzero"`

	// FreeBind is IP_FREEBIND: Address need not be an address of this host yet.
	FreeBind bool `json:",omitzero"`

	// Transparent is IP_TRANSPARENT: Address need not be an address of this host at all. It needs
	// CAP_NET_ADMIN or CAP_NET_RAW, in the master alone.
	Transparent bool `json:",omitzero"`
}

const (
	maxKeepAlive      = 32767 * time.Second // MAX_TCP_KEEPIDLE
	maxKeepAliveCount = 127                 // MAX_TCP_KEEPCNT
	maxBuffer         = 1 << 30
	maxDeferAccept    = 600 * time.Second
)

// validate returns an error for the first field that is not valid, or nil.
func (o SocketOptions) validate() error {
	switch {
	case o.KeepAliveIdle > maxKeepAlive:
		return fmt.Errorf("KeepAliveIdle is longer than %v", maxKeepAlive)
	case o.KeepAliveInterval < 0 || o.KeepAliveInterval > maxKeepAlive:
		return fmt.Errorf("KeepAliveInterval is not between 0 (= 15s) and %v", maxKeepAlive)
	case o.KeepAliveCount < 0 || o.KeepAliveCount > maxKeepAliveCount:
		return fmt.Errorf("KeepAliveCount is not between 0 (= 9) and %d", maxKeepAliveCount)
	case o.KeepAliveIdle < 0 && (o.KeepAliveInterval != 0 || o.KeepAliveCount != 0):
		return errors.New("KeepAliveIdle is negative, which is no keep-alive, beside an Interval or a Count")
	case o.ReceiveBuffer < 0 || o.ReceiveBuffer > maxBuffer:
		return fmt.Errorf("ReceiveBuffer is not between 0 and %d", maxBuffer)
	case o.SendBuffer < 0 || o.SendBuffer > maxBuffer:
		return fmt.Errorf("SendBuffer is not between 0 and %d", maxBuffer)
	case o.DeferAccept < 0 || o.DeferAccept > maxDeferAccept:
		return fmt.Errorf("DeferAccept is not between 0 and %v", maxDeferAccept)
	case o.FastOpen < 0 || o.FastOpen > 1<<16:
		return fmt.Errorf("FastOpen is not between 0 and %d", 1<<16)
	}
	return nil
}
