package coppice

import (
	"context"
	"net"

	"github.com/coppice-go/coppice/netactor"
)

// request is what netactor is asked for l.
func (l Listener) request() netactor.Request {
	return netactor.Request{
		Name: l.Name, Network: l.Network, Address: l.Address, FD: l.FD,
		Policy: l.Policy, Backlog: l.Backlog,
	}
}

func (c *child) listen(ctx context.Context, l Listener) (net.Listener, error) {
	return c.accept.Listen(ctx, l.request())
}

func (c *child) adopt(ln net.Listener) net.Listener { return c.accept.Adopt(ln) }

func (c *child) share(ctx context.Context, l Listener, ln net.Listener) (net.Listener, error) {
	return c.accept.Share(ctx, l.request(), ln)
}

// ListenerInfo is one socket that the master holds.
type ListenerInfo struct {
	Name   string   // as asked for; may be empty
	Addr   net.Addr // as bound
	Policy Policy
}

// Listeners returns the sockets that the master holds, in the order in which
// they were opened.
func (rt *Runtime) Listeners() []ListenerInfo {
	var infos []ListenerInfo
	for _, s := range rt.sockets.Sockets() {
		infos = append(infos, ListenerInfo{Name: s.Name, Addr: addr{s.Network, s.Address}, Policy: s.Policy})
	}
	return infos
}

// addr is the address of a socket of the master's.
type addr struct{ network, address string }

func (a addr) Network() string { return a.network }
func (a addr) String() string  { return a.address }
