package registry

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// privileged reports whether o has an option that only the tree's listeners may have, and workers
// that may ask for anything.
func privileged(o netactor.SocketOptions) bool { return o.FreeBind || o.Transparent }

// describe returns a text, for logs, of the socket that r asks for.
func describe(r netactor.Request) string {
	what := fmt.Sprintf("%s %.200s", r.Network, r.Address)
	switch {
	case r.FD != 0:
		what = fmt.Sprintf("descriptor %d of the master", r.FD)
	case byName(r):
		what = fmt.Sprintf("listener %.200q", r.Name)
	}
	if privileged(r.Options) {
		what += " with FreeBind or Transparent"
	}
	return what
}

// byName reports whether r asks for a socket by its name alone.
func byName(r netactor.Request) bool { return r.FD == 0 && r.Network == "" }

// denied reports whether the rules of a worker's pool forbid giving it s, or, if s is nil, opening
// the socket that it asks for. A request by name alone may wait until a socket has that name; then
// denied is called again.
func (t *tableState) denied(p pendingRequest, s *socketState) bool {
	switch {
	case p.worker == 0 || p.rules == nil || p.rules.Any:
		return false
	case s != nil && p.socket == nil && s.ofSpec():
		return false
	case byName(p.req.Request):
		return s != nil && !p.rules.Allows(s.asRequest())
	case p.socket == nil && !privileged(p.req.Options) && t.specAt(p.req.Request) != nil:
		return false
	}
	return !p.rules.Allows(p.req.Request)
}

// maxNamesTold bounds the names in the answer to a request for a name that there is not.
const maxNamesListed = 10

// unknownName returns the text of the error that the worker of p gets: no socket has the name, and
// these are the names that the worker may use.
func (t *tableState) unknownName(p pendingRequest) string {
	var names []string
	for name, number := range t.names {
		if !t.denied(p, t.sockets[number]) {
			names = append(names, strconv.Quote(name))
		}
	}
	slices.Sort(names)
	switch n := len(names); {
	case n == 0:
		return fmt.Sprintf("no listener is named %q, and no other has a name", p.req.Name)
	case n > maxNamesListed:
		names = append(names[:maxNamesListed], fmt.Sprintf("and %d more", n-maxNamesListed))
	}
	return fmt.Sprintf("no listener is named %q, there are %s", p.req.Name, strings.Join(names, ", "))
}

// asRequest returns the request that the rules must allow for a worker to get s.
func (s *socketState) asRequest() netactor.Request {
	r := s.req.Request
	if address.IsInternet(r.Network) && s.phase == open {
		r.Address = s.boundAddress()
	}
	return r
}

// ofSpec reports whether s is a listener of the tree, or is about to be.
func (s *socketState) ofSpec() bool {
	if s.ofTree {
		return true
	}
	for _, o := range s.owners {
		if o.spec {
			return true
		}
	}
	return slices.ContainsFunc(s.waiting, func(p pendingRequest) bool { return p.worker == 0 })
}

// specAt returns the request of the tree's listener that asks for the same socket as r, or nil.
func (t *tableState) specAt(r netactor.Request) *socket.SocketSpec {
	i := slices.IndexFunc(t.specs, func(spec socket.SocketSpec) bool {
		return !byName(spec.Request) && wire.Key(spec.Request) == wire.Key(r)
	})
	if i < 0 {
		return nil
	}
	return &t.specs[i]
}

// settingsOfSpec gives p the settings of the tree's listener that asks for the same socket, for a
// worker that asks before the tree has opened it. It returns false if there is no such listener. A
// request that leaves the port to the kernel never asks for the same socket.
func (t *tableState) settingsOfSpec(p *pendingRequest) (ok bool) {
	spec := t.specAt(p.req.Request)
	if spec == nil || p.worker == 0 || p.socket != nil || wire.Port(p.req.Request) == 0 {
		return false
	}
	packet := p.req.Packet // set for a descriptor
	p.req = *spec
	p.req.Packet = packet
	return true
}

// reserved reports whether the name that a worker gives to its socket belongs to a listener of the
// tree with another address.
func (t *tableState) reserved(p pendingRequest) bool {
	return p.worker != 0 && p.req.Name != "" && !byName(p.req.Request) && slices.ContainsFunc(t.specs, func(spec socket.SocketSpec) bool {
		return spec.Name == p.req.Name && (byName(spec.Request) || wire.Key(spec.Request) != wire.Key(p.req.Request) || p.socket != nil)
	})
}

// resolvedSpecs returns the tree's listeners, resolved as far as that needs no name server. A
// listener whose address needs a name server has only its name here, and gets its address once it
// is open.
func resolvedSpecs(specs []netactor.Request) (out []socket.SocketSpec) {
	for _, r := range specs {
		known := r
		if address.IsInternet(r.Network) {
			host, port, err := net.SplitHostPort(r.Address)
			var a netip.Addr
			if err == nil && host != "" {
				a, err = netip.ParseAddr(host)
			}
			n, perr := strconv.ParseUint(port, 10, 16)
			if err != nil || perr != nil {
				known.Network, known.Address = "", ""
			} else {
				var ap netip.AddrPort
				known.Network, ap = address.Canonical(r.Network, netip.AddrPortFrom(a.Unmap(), uint16(n)))
				known.Address = ap.String()
			}
		}
		out = append(out, socket.SocketSpec{Request: known})
	}
	return out
}
