package netactor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/coppice-go/coppice/netactor/internal/address"
)

// ErrListenDenied is wrapped, beside EACCES, by the error of a Listen, ListenPacket or Share that
// the rules of the worker's pool do not allow.
var ErrListenDenied = errors.New("the pool may not listen there")

// ListenRules are what the workers of a pool may ask the master to listen on; the master does so
// with its own rights. The workers may always have the sockets of the tree's own listeners, by name
// and by address.
//
// The creator of the Table replaces the zero value by a default.
type ListenRules struct {
	Any   bool         // everything that the master may; conflicts with the others
	None  bool         // nothing more; conflicts with the others
	Allow []ListenRule // and every socket that one of these rules allows
}

// ListenRule allows some sockets.
//
//	{Network: "tcp", Address: "127.0.0.1", Ports: "0,8000-8099"}
//	{Network: "unix", Address: "/run/app/"}
type ListenRule struct {
	// Network is a network of net.Listen or net.ListenPacket. tcp also stands for tcp4 and tcp6,
	// and udp for udp4 and udp6.
	Network string

	// Address is an IP address, or a range as 10.0.0.0/8; the unspecified address, 0.0.0.0 or ::,
	// is in no range but the ranges of all addresses. For a Unix socket it is a path, or with / at
	// its end all paths below it; or an abstract name after @, which may end in / with the same
	// meaning. Empty is every address.
	Address string

	// Ports are numbers and ranges, as "0,443,8000-8099"; 0 is a port of the kernel's choice. Empty
	// is every port.
	Ports string

	// FD is the number of a socket that the master was started with, or opened. The other fields
	// are then empty.
	FD int
}

func (rs ListenRules) isZero() bool { return !rs.Any && !rs.None && len(rs.Allow) == 0 }

// Or returns rs, or byDefault if rs is the zero value.
func (rs ListenRules) Or(byDefault ListenRules) ListenRules {
	if rs.isZero() {
		return byDefault
	}
	return rs
}

// Validate returns an error that joins all fields that are not valid, or nil.
func (rs ListenRules) Validate() error {
	var errs []error
	if rs.Any && (rs.None || len(rs.Allow) > 0) || rs.None && len(rs.Allow) > 0 {
		errs = append(errs, errors.New("more than one of Any, None and Allow is set"))
	}
	for i, r := range rs.Allow {
		if err := r.validate(); err != nil {
			errs = append(errs, fmt.Errorf("Allow[%d] %w", i, err))
		}
	}
	return errors.Join(errs...)
}

func (r ListenRule) validate() error {
	if r.FD != 0 {
		if r.FD < 0 || r != (ListenRule{FD: r.FD}) {
			return fmt.Errorf("FD %d: is negative, or stands beside a Network, an Address or Ports", r.FD)
		}
		return nil
	}
	switch {
	case address.IsInternet(r.Network):
		if _, err := r.prefix(); err != nil {
			return fmt.Errorf("Address %q: is neither an IP address nor a range of some, as 10.0.0.0/8", r.Address)
		}
		if _, err := r.port(0); err != nil {
			return err
		}
	case address.IsLocal(r.Network):
		path := strings.TrimSuffix(r.Address, "/")
		if r.Address != "" && r.Address != "/" && !strings.HasPrefix(path, "@") && !address.CleanPath(path) {
			return fmt.Errorf("Address %q: is neither an absolute path nor an abstract name", r.Address)
		}
		if r.Ports != "" {
			return fmt.Errorf("Ports %q: a Unix socket has none", r.Ports)
		}
	default:
		return fmt.Errorf("Network %q: is none of tcp, tcp4, tcp6, unix, unixpacket, udp, udp4, udp6, unixgram", r.Network)
	}
	return nil
}

// Allows reports whether a resolved request is allowed.
func (rs ListenRules) Allows(q Request) bool {
	return rs.Any || !q.Options.FreeBind && !q.Options.Transparent && slices.ContainsFunc(rs.Allow, func(r ListenRule) bool { return r.allows(q) })
}

func (r ListenRule) allows(q Request) bool {
	if r.FD != 0 || q.FD != 0 {
		return r.FD == q.FD
	}
	if r.Network != q.Network && (r.Network != strings.TrimRight(q.Network, "46") || !address.IsInternet(r.Network)) {
		return false
	}
	if address.IsLocal(q.Network) {
		switch {
		case !strings.HasPrefix(q.Address, "@") && !address.CleanPath(q.Address):
			return false
		case r.Address == "" || r.Address == q.Address:
			return true
		}
		return strings.HasSuffix(r.Address, "/") && strings.HasPrefix(q.Address, r.Address)
	}
	ap, err := netip.ParseAddrPort(q.Address)
	if err != nil {
		return false
	}
	in, err := r.port(int(ap.Port()))
	if err != nil || !in {
		return false
	}
	p, err := r.prefix()
	a := ap.Addr().WithZone("").Unmap()
	switch {
	case err != nil:
		return false
	case !p.IsValid():
		return true
	case a.IsUnspecified(): // every address
		return p.Bits() == 0 || p.Addr().IsUnspecified() && p.IsSingleIP()
	}
	return p.Contains(a)
}

// prefix returns the addresses of r; a prefix that is not valid means all addresses.
func (r ListenRule) prefix() (netip.Prefix, error) {
	if r.Address == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(r.Address); err == nil {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(r.Address)
	return p.Masked(), err
}

// port reports whether a port is among those of r.
func (r ListenRule) port(n int) (in bool, err error) {
	if r.Ports == "" {
		return true, nil
	}
	for s := range strings.SplitSeq(r.Ports, ",") {
		first, last, isRange := strings.Cut(s, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil || a > b {
			return false, fmt.Errorf("Ports %q: %q is neither a port nor a range of some, as 8000-8099", r.Ports, s)
		}
		in = in || int(a) <= n && n <= int(b)
	}
	return in, nil
}
