package actors

import (
	"encoding/binary"

	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// A Gateway carries lanes between the processes of this host and those of others; it is what a
// program like that of module actors/hosts implements, in a process of its own. It never decodes
// what it carries, nor the reasons, which are for the master of another host, of at most 4 KiB.
//
// The methods are called one at a time, in the order of what the master has decided, and must not
// block. They take ownership of ends, each of which is to be used or closed before they return.
type Gateway interface {
	// OpenLane: the process from of this host, of that incarnation, wants a lane to the process to
	// of another. It is answered by Opened or Refused, with its number. from gets the other end
	// after Opened.
	OpenLane(number uint64, from string, incarnation uint64, to string, end HalfLane)
	// LaneAccepted answers Offer: the process has the other end.
	LaneAccepted(ref, incarnation uint64, end HalfLane)
	// LaneDeclined answers Offer too. If OpenLane was called for the two processes, and is not
	// answered yet, the other host is to hear of that lane before it hears why.
	LaneDeclined(ref uint64, why []byte)
	// ProcessEnded: a process of this host has ended. Its lanes end when all that it has sent is
	// carried, and why is for ForeignEnded at the other host.
	ProcessEnded(address string, why []byte)
}

// A HalfLane is an end of a lane, for the gateway.
type HalfLane struct{ h *fdipc.Handle }

// Conn returns the channel of the end, which is the caller's. It is called at most once, and not
// after Close.
func (e HalfLane) Conn(cfg fdipc.Config) (*fdipc.Conn, error) {
	if e.h == nil {
		return nil, fdipc.ErrNoFiles // this process had no room for it
	}
	cfg.Credits = laneCredits
	return connOf(e.h, cfg)
}

// Close closes the end.
func (e HalfLane) Close() {
	if e.h != nil {
		e.h.Refuse(fdipc.ReasonClosed)
	}
}

// A Carrier is what a [Gateway] tells the master of its host. The methods do not block; what one
// goroutine says arrives in order.
type Carrier struct{ ps *peers }

// Carry makes this process, a child, the gateway of its host, if the master agrees
// ([System.SetGateway]).
func (s *System) Carry(g Gateway) *Carrier {
	s.peers.gateway.Store(&g)
	return &Carrier{s.peers}
}

// SetGateway tells the master which of the attached processes is the gateway of the host.
func (s *System) SetGateway(address string) {
	if l := s.peers.foreign; l != nil {
		l.setGateway(address)
	}
}

func (c *Carrier) post(op byte, subject string, more func([]byte) []byte) {
	if up := c.ps.find(c.ps.uplinkAddress()); up != nil {
		up.postLane(op, subject, more)
	}
}

// Opened answers OpenLane: the process to of the other host has its half.
func (c *Carrier) Opened(number uint64, to string, incarnation uint64) {
	c.post(laneOpened, to, func(b []byte) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(b, number), incarnation)
	})
}

// Refused answers OpenLane: why is what the other host's LaneDeclined had; nil: no trunk leads
// there.
func (c *Carrier) Refused(number uint64, to string, why []byte) {
	c.post(laneRefused, to, func(b []byte) []byte { return append(binary.AppendUvarint(b, number), why...) })
}

// Offer says that the process from of another host, of that incarnation, wants a lane to the
// process to of this one. LaneAccepted or LaneDeclined answers, with ref, which is the caller's.
// The caller has made sure that from is of that host.
func (c *Carrier) Offer(ref uint64, from string, incarnation uint64, to string) {
	c.post(laneOffer, from, func(b []byte) []byte {
		return wire.AppendString(binary.AppendUvarint(binary.AppendUvarint(b, ref), incarnation), to)
	})
}

// ForeignEnded says that a process of another host has ended, whose gateway said why. All that it
// has sent on its lanes was given to their ends before.
func (c *Carrier) ForeignEnded(address string, why []byte) {
	up := c.ps.find(c.ps.uplinkAddress())
	r := &wire.Reader{B: why}
	if reason, _ := readWhy(r); up != nil && !r.Bad && len(why) > 0 {
		up.postProcessEnded(address, reason)
	}
}

// HostUp says that a trunk leads to a host.
func (c *Carrier) HostUp(name, boot string) {
	c.post(laneHostUp, name, func(b []byte) []byte { return wire.AppendString(b, boot) })
}

// HostDown says that no trunk leads to the host with a boot any more, and that its lanes have
// ended.
func (c *Carrier) HostDown(boot string) { c.post(laneHostDown, boot, nil) }

// onGateway takes what the master says to the gateway. It returns false for anything else.
func (ps *peers) onGateway(op byte, subject string, handles []*fdipc.Handle, r *wire.Reader) bool {
	at := ps.gateway.Load()
	if at == nil {
		return false
	}
	var end HalfLane
	if len(handles) == 1 {
		end.h = handles[0]
	}
	switch g := *at; op {
	case laneOpen:
		number, from, incarnation := r.Uint(), r.Text(wire.MaxAddress), r.Uint()
		if !r.Bad {
			g.OpenLane(number, from, incarnation, subject, end)
		}
	case laneAccepted:
		ref, incarnation := r.Uint(), r.Uint()
		if !r.Bad {
			g.LaneAccepted(ref, incarnation, end)
		}
	case laneDeclined:
		if ref := r.Uint(); !r.Bad {
			g.LaneDeclined(ref, r.B)
		}
	default:
		return false
	}
	return !r.Bad
}

// Boot returns the boot of the host in the address of one of its processes; "" in a tree without
// a cluster.
func Boot(address string) string { return foreign.Boot(address) }
