package netactor

import (
	"fmt"
	"net/netip"
	"strings"
)

// requestKey is what makes two requests mean the same socket: Node's
// address:port:type:fd:index. r is resolved.
func requestKey(r Request) string {
	if r.FD != 0 {
		return fmt.Sprintf("fd:%d:%d", r.FD, r.Ordinal)
	}
	return fmt.Sprintf("%s:%s:%d", r.Network, r.Address, r.Ordinal)
}

// requestPort returns the port of a resolved TCP or UDP request, or -1.
func requestPort(r Request) int {
	if r.FD != 0 || !internet(r.Network) {
		return -1
	}
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return -1
	}
	return int(ap.Port())
}

// decodeRequest reads a Request from a worker. What comes back is resolved and
// valid.
func decodeRequest(b []byte) (Request, error) {
	var r Request
	if err := decode(b, &r); err != nil {
		return Request{}, err
	}
	if err := r.Validate(); err != nil {
		return Request{}, err
	}
	if !resolved(r) {
		return Request{}, fmt.Errorf("netactor: address %q is not resolved", r.Address)
	}
	return r, nil
}

// resolved reports whether the address of r is written as resolve writes it, so that it means to
// the kernel what it means to whoever compares it.
func resolved(r Request) bool {
	switch {
	case local(r.Network):
		return strings.HasPrefix(r.Address, "@") || cleanPath(r.Address)
	case internet(r.Network):
		ap, err := netip.ParseAddrPort(r.Address)
		if err != nil || ap.Addr().Is4In6() || len(ap.Addr().Zone()) > maxZone {
			return false
		}
		if ap.Addr().Is4() && strings.HasSuffix(r.Network, "6") || ap.Addr().Is6() && strings.HasSuffix(r.Network, "4") {
			return false
		}
		network, same := canonical(r.Network, ap)
		return network == r.Network && same == ap
	}
	return true
}

// maxZone is the length of an interface's name, less the final zero (IFNAMSIZ).
const maxZone = 15
