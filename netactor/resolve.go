package netactor

import (
	"context"
	"net"
	"path/filepath"
	"strings"
)

// resolve returns r with its address as the master is to see it: names looked
// up, paths absolute, and equal sockets written equally. It runs in the worker,
// whose resolver, hosts file and working directory count (as in Node). It may
// wait for a name server; ctx ends that. Errors are those of net.Listen.
func resolve(ctx context.Context, r Request) (Request, error) {
	if err := r.Validate(); err != nil {
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
