package address

import (
	"context"
	"net"
	"net/netip"
	"strings"
)

// LookUp looks host and port up. Without a host it returns the zero Addr. Of several addresses it
// returns an IPv4 one first, as net.Listen does.
func LookUp(ctx context.Context, network, address string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(address)
	if address == "" {
		host, service, err = "", "0", nil // net.Listen allows it; so does listen() in Node (N42)
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if host == "" {
		return netip.AddrPortFrom(netip.Addr{}, uint16(port)), nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var v6 netip.Addr
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.Is4() && !strings.HasSuffix(network, "6") {
			return netip.AddrPortFrom(ip, uint16(port)), nil
		} else if ip.Is6() && !strings.HasSuffix(network, "4") && !v6.IsValid() {
			v6 = ip
		}
	}
	if !v6.IsValid() {
		return netip.AddrPort{}, &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	return netip.AddrPortFrom(v6, uint16(port)), nil
}

// Canonical gives equal sockets equal names, by the rules of net.Listen: "tcp", or "udp", without a
// specific host, is one dual-stack socket, however the host is written.
func Canonical(network string, ap netip.AddrPort) (string, netip.AddrPort) {
	a := ap.Addr()
	either := network == "tcp" || network == "udp"
	switch {
	case either && (!a.IsValid() || a.IsUnspecified()):
		a = netip.IPv6Unspecified()
	case strings.HasSuffix(network, "4") && !a.IsValid():
		a = netip.IPv4Unspecified()
	case strings.HasSuffix(network, "6") && !a.IsValid():
		a = netip.IPv6Unspecified()
	case either && a.Is4():
		network += "4"
	case either:
		network += "6"
	}
	return network, netip.AddrPortFrom(a, ap.Port())
}
