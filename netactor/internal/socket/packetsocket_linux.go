package socket

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor/internal/address"
)

func bindUDP(r SocketSpec, ap netip.AddrPort) (*Bound, error) {
	group := ap.Addr().IsMulticast()
	if group { // as net.ListenPacket: a socket gets the datagrams of a group if it has the port and joined the group
		any := netip.IPv6Unspecified()
		if ap.Addr().Is4() {
			any = netip.IPv4Unspecified()
		}
		ap = netip.AddrPortFrom(any, ap.Port())
	}
	s, sa, err := inetSocket(r, ap, unix.SOCK_DGRAM, unix.IPPROTO_UDP)
	if err != nil {
		return nil, err
	}
	if s, err = s.Applied(r); err != nil {
		return nil, err
	}
	err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1))
	if err == nil && group {
		err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	}
	if err == nil {
		err = s.bind(r, sa)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// takePacketSocket takes ownership of s, which must be a UDP or Unix packet socket that is bound
// and not connected: a connected socket talks to one peer only. It closes any other socket.
func takePacketSocket(s *Bound) (*Bound, error) {
	network, addr, err := s.Address()
	bound := err == nil && address.IsPacket(network)
	if ap, e := netip.ParseAddrPort(addr); e == nil && ap.Port() == 0 || addr == "" {
		bound = false
	}
	if p, e := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); e != nil || network == "udp" && p != unix.IPPROTO_UDP {
		bound = false // of ICMP, for instance
	}
	if _, err := unix.Getpeername(s.fd); err != unix.ENOTCONN {
		bound = false
	}
	if !bound {
		s.Close()
		return nil, fmt.Errorf("it is no packet socket of UDP or Unix that is bound and not connected: %w", os.NewSyscallError("listen", unix.EINVAL))
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		s.Close()
		return nil, os.NewSyscallError("setnonblock", err)
	}
	return s, nil
}

// IsPacket reports whether the process's descriptor fd is a packet socket.
func IsPacket(fd int) bool {
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && typ == unix.SOCK_DGRAM
}
