package wire

import (
	"context"
	"net"
	"path/filepath"
	"strings"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// Resolve returns r with its address in the master's form: names looked up, paths absolute, and
// equal sockets written equally. It runs in the worker, whose resolver, hosts file and working
// directory count (as in Node). It may wait for a name server; ctx ends the wait. Errors are those
// of net.Listen.
func Resolve(ctx context.Context, r netactor.Request) (netactor.Request, error) {
	if err := r.Validate(); err != nil {
		if unknown, ok := unknownNetwork(r.Network); ok {
			err = unknown
		}
		return r, address.ListenError(r.Network, nil, err)
	}
	if r.Network == "" {
		return r, nil
	}
	if address.IsLocal(r.Network) {
		if strings.HasPrefix(r.Address, "@") {
			return r, nil
		}
		path, err := filepath.Abs(r.Address)
		if err != nil {
			return r, address.ListenError(r.Network, nil, err)
		}
		r.Address = path
		return r, nil
	}
	ap, err := address.LookUp(ctx, r.Network, r.Address)
	if err != nil {
		return r, address.ListenError(r.Network, nil, err)
	}
	r.Network, ap = address.Canonical(r.Network, ap)
	r.Address = ap.String()
	return r, nil
}

func unknownNetwork(network string) (error, bool) {
	if network == "" || address.IsInternet(network) || address.IsLocal(network) {
		return nil, false
	}
	return net.UnknownNetworkError(network), true
}
