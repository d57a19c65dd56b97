package netactor

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
)

// resolve returns r with its address as the master is to see it: names looked
// up, paths absolute, and equal sockets written equally. It runs in the worker,
// whose resolver, hosts file and working directory count (as in Node). It may
// wait for a name server; ctx ends that. Errors are those of net.Listen.
func (r Request) resolve(ctx context.Context) (Request, error) {
	if err := r.validate(); err != nil {
		if unknown, ok := unknownNetwork(r.Network); ok {
			err = unknown
		}
		return r, listenError(r.Network, nil, err)
	}
	if r.Network == "" {
		return r, nil
	}
	if local(r.Network) {
		if strings.HasPrefix(r.Address, "@") {
			return r, nil
		}
		path, err := filepath.Abs(r.Address)
		if err != nil {
			return r, listenError(r.Network, nil, err)
		}
		r.Address = path
		return r, nil
	}
	ap, err := lookUp(ctx, r.Network, r.Address)
	if err != nil {
		return r, listenError(r.Network, nil, err)
	}
	r.Network, ap = canonical(r.Network, ap)
	r.Address = ap.String()
	return r, nil
}

func unknownNetwork(network string) (error, bool) {
	if network == "" || internet(network) || local(network) {
		return nil, false
	}
	return net.UnknownNetworkError(network), true
}

// lookUp looks host and port up. No host gives the zero Addr. Of several
// addresses IPv4 wins, as in net.Listen.
func lookUp(ctx context.Context, network, address string) (netip.AddrPort, error) {
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

// canonical gives equal sockets equal names, by the rules of net.Listen: "tcp", or "udp",
// without a specific host is one dual-stack socket, however it is written.
func canonical(network string, ap netip.AddrPort) (string, netip.AddrPort) {
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
