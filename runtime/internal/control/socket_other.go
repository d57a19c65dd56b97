//go:build !linux

package control

import (
	"errors"
	"net"
)

// Peer is the process that connected to the socket.
type Peer struct{ PID, UID int }

func checkPeer(*net.UnixConn, func() []int) (Peer, error) { return Peer{}, errors.ErrUnsupported }

// Socket is for Linux.
type Socket struct {
	*net.UnixListener
	Path string
}

// Listen is for Linux.
func Listen(string) (*Socket, error) { return nil, errors.ErrUnsupported }

// ListenAuto is for Linux.
func ListenAuto([]string, string) (*Socket, error) { return nil, errors.ErrUnsupported }

// CgroupOf is for Linux.
func CgroupOf(int) string { return "" }
