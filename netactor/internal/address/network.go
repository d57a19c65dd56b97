package address

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// The networks are those of package net. In a reply, the network of a socket is the family only:
// tcp, udp, unix, unixpacket, unixgram.

// IsPacket reports whether a network's sockets take datagrams, and not connections.
func IsPacket(network string) bool {
	switch network {
	case "udp", "udp4", "udp6", "unixgram":
		return true
	}
	return false
}

// IsInternet reports whether a network's addresses are host:port.
func IsInternet(network string) bool {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return true
	}
	return false
}

// IsLocal reports whether a network's addresses are paths, or abstract names.
func IsLocal(network string) bool {
	switch network {
	case "unix", "unixpacket", "unixgram":
		return true
	}
	return false
}

// CleanPath reports whether a path is absolute, clean, as filepath.Clean returns it, and has no
// zero byte.
func CleanPath(path string) bool {
	return strings.HasPrefix(path, "/") && path == filepath.Clean(path) && !strings.ContainsRune(path, 0)
}

// ListenError returns err in the form of an error of net.Listen, which every error of a Listen has.
func ListenError(network string, addr net.Addr, err error) error {
	return &net.OpError{Op: "listen", Net: network, Addr: addr, Err: err}
}

// Parse makes a net.Addr from a resolved address.
func Parse(network, address string) (net.Addr, error) {
	if IsLocal(network) {
		return &net.UnixAddr{Net: network, Name: address}, nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("netactor: %s address: %w", network, err)
	}
	if IsPacket(network) {
		return net.UDPAddrFromAddrPort(ap), nil
	}
	return net.TCPAddrFromAddrPort(ap), nil
}
