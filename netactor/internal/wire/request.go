package wire

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// Key returns the share key of a resolved request: two requests with the same key mean the same
// socket. It is Node's address:port:type:fd:index. A request that leaves the port to the kernel
// names no socket by its address, so its name is part of the key.
func Key(r netactor.Request) string {
	if r.FD != 0 {
		return fmt.Sprintf("fd:%d:%d", r.FD, r.Ordinal)
	}
	key := fmt.Sprintf("%s:%s:%d", r.Network, r.Address, r.Ordinal)
	if r.Name != "" && Port(r) == 0 {
		key += ":" + r.Name
	}
	return key
}

// Port returns the port of a resolved TCP or UDP request, or -1.
func Port(r netactor.Request) int {
	if r.FD != 0 || !address.IsInternet(r.Network) {
		return -1
	}
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return -1
	}
	return int(ap.Port())
}

// DecodeRequest reads a Request from a worker. The returned request is resolved and valid.
func DecodeRequest(b []byte) (netactor.Request, error) {
	var r netactor.Request
	if err := Decode(b, &r); err != nil {
		return netactor.Request{}, err
	}
	if err := r.Validate(); err != nil {
		return netactor.Request{}, err
	}
	if !resolved(r) {
		return netactor.Request{}, fmt.Errorf("netactor: address %q is not resolved", r.Address)
	}
	return r, nil
}

// resolved reports whether the address of r is written as Resolve writes it, so that it means the
// same to the kernel and to any code that compares it.
func resolved(r netactor.Request) bool {
	switch {
	case address.IsLocal(r.Network):
		return strings.HasPrefix(r.Address, "@") || address.CleanPath(r.Address)
	case address.IsInternet(r.Network):
		ap, err := netip.ParseAddrPort(r.Address)
		if err != nil || ap.Addr().Is4In6() || len(ap.Addr().Zone()) > maxZone {
			return false
		}
		if ap.Addr().Is4() && strings.HasSuffix(r.Network, "6") || ap.Addr().Is6() && strings.HasSuffix(r.Network, "4") {
			return false
		}
		network, same := address.Canonical(r.Network, ap)
		return network == r.Network && same == ap
	}
	return true
}

// maxZone is the maximum length of an interface's name, without the final zero (IFNAMSIZ).
const maxZone = 15
