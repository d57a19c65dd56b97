package fdipc

import (
	"errors"
	"fmt"
)

// Route says what handles the frames whose kinds are in a range.
type Route struct {
	First, Last Kind // the range, both included; Last zero: First alone

	// Handler gets the frames, under the rules of [Config.Handler]. Required.
	Handler func(c *Conn, f *Frame)

	// NoFiles gets those whose handles did not come, as [Config.NoFiles] does. Nil: they are
	// dropped.
	NoFiles func(c *Conn, f *Frame)
}

// Mux routes frames by their kind. It does not change once it is made, so it may be used
// concurrently, and for any number of Conns:
//
//	m, err := fdipc.NewMux(routes...)
//	cfg.Handler, cfg.NoFiles = m.Handle, m.NoFiles
type Mux struct {
	routes []Route
	index  [1 << 8]uint8 // by kind: the route's index plus 1; 0: none
}

// NewMux makes a Mux of routes. It returns an error that wraps [ErrKind] and names every route
// that has no Handler, an empty range, a kind of the transport's, or a kind of an earlier route's.
func NewMux(routes ...Route) (*Mux, error) {
	m := &Mux{routes: routes}
	var errs []error
	bad := func(r Route, format string, args ...any) {
		errs = append(errs, fmt.Errorf("fdipc: %w: route %#x to %#x %s", ErrKind, r.First, r.Last, fmt.Sprintf(format, args...)))
	}
	for i, r := range routes {
		if r.Last == 0 {
			r.Last = r.First
		}
		switch {
		case r.Handler == nil:
			bad(r, "has no Handler")
		case r.Last < r.First:
			bad(r, "is empty")
		case r.First < FirstUserKind:
			bad(r, "takes the transport's own")
		}
		for k := int(r.First); k <= int(r.Last); k++ {
			if at := m.index[k]; at != 0 {
				bad(r, "overlaps route %#x to %#x", routes[at-1].First, routes[at-1].Last)
				break
			}
			m.index[k] = uint8(i + 1)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return m, nil
}

// Handle gives f to the Handler of its route. A frame without one is refused with [ReasonUnknown]:
// it comes from a peer of a later release, or from one in disorder. It is for [Config.Handler].
func (m *Mux) Handle(c *Conn, f *Frame) {
	if i := m.index[f.Kind]; i != 0 {
		m.routes[i-1].Handler(c, f)
		return
	}
	f.Refuse(ReasonUnknown)
}

// NoFiles gives f to the NoFiles of its route, or drops it. It is for [Config.NoFiles].
func (m *Mux) NoFiles(c *Conn, f *Frame) {
	if i := m.index[f.Kind]; i != 0 && m.routes[i-1].NoFiles != nil {
		m.routes[i-1].NoFiles(c, f)
	}
}
