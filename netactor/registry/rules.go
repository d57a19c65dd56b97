package registry

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// privileged reports whether o has what is for the tree's own listeners, and for workers that may ask for anything.
func privileged(o netactor.SocketOptions) bool { return o.FreeBind || o.Transparent }

// describe is what people call what r asks for.
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

// byName reports whether r asks for what has its name, whatever it is.
func byName(r netactor.Request) bool { return r.FD == 0 && r.Network == "" }

// denied reports whether the rules of a worker's pool are against giving it s, or with nil against opening what it asks
// for. One that asks by name alone may wait for what comes: then it is asked again.
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

// asRequest is the request that s would be allowed by.
func (s *socketState) asRequest() netactor.Request {
	r := s.req.Request
	if address.IsInternet(r.Network) && s.phase == open {
		r.Address = s.boundAddress()
	}
	return r
}

// ofSpec reports whether s is a listener of the tree's own, or about to be.
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

// settingsOfSpec has a socket of the tree's own, which a worker asks for before it is open, opened as the tree
// wants it. A port of the kernel's choice is another one for each.
func (t *tableState) settingsOfSpec(p *pendingRequest) (ok bool) {
	spec := t.specAt(p.req.Request)
	if spec == nil || p.worker == 0 || p.socket != nil || wire.Port(p.req.Request) == 0 {
		return false
	}
	packet := p.req.Packet // of a descriptor
	p.req = *spec
	p.req.Packet = packet
	return true
}

// reserved reports whether the name that a worker gives to what it opens is that of a listener of the tree,
// which is somewhere else.
func (t *tableState) reserved(p pendingRequest) bool {
	return p.worker != 0 && p.req.Name != "" && !byName(p.req.Request) && slices.ContainsFunc(t.specs, func(spec socket.SocketSpec) bool {
		return spec.Name == p.req.Name && (byName(spec.Request) || wire.Key(spec.Request) != wire.Key(p.req.Request) || p.socket != nil)
	})
}

// resolvedSpecs returns what is known of the tree's listeners without asking a name server. One whose address needs
// that has its name alone, and is known by its address once it is open.
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
