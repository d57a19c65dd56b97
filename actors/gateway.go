package actors

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// A Gateway carries lanes between the processes of this host and those of others; it is what a
// program like that of module actors/hosts implements, in a process of its own. It never decodes
// what it carries, nor the reasons, which are for the master of another host, of at most 4 KiB.
//
// The methods are called one at a time and in the order of what the master has decided, and must
// not block. They take ownership of ends, each of which is to be used or closed before they return.
type Gateway interface {
	// Begin: the master agrees that this process is the gateway. It is the first call, and may come
	// again when the program of the master was replaced. What a Carrier says before is refused.
	Begin()
	// OpenLane: the process from of this host, of that incarnation, wants a lane to the process to
	// of another. It is answered by Opened or Refused, with its number. from gets the other end
	// after Opened.
	OpenLane(number uint64, from string, incarnation uint64, to string, end HalfLane)
	// LaneAccepted answers Offer: the process has the other end, and the lane has a number here.
	LaneAccepted(ref, number, incarnation uint64, end HalfLane)
	// LaneDeclined answers Offer too. If OpenLane was called for the two processes, and is not
	// answered yet, the other host is to hear of that lane before it hears why.
	LaneDeclined(ref uint64, why []byte)
	// ProcessEnded: a process of this host has ended. Its lanes end when all that it has sent is
	// carried, and why is for LaneEnded at the other host.
	ProcessEnded(address string, why []byte)
}

// GatewayProcess is what a gateway needs of its process. Listen opens a socket that a later gateway
// shares, and Ready says that it can be the gateway.
type GatewayProcess interface {
	System() *System
	Incarnation() uint64 // higher in a later gateway of the boot
	Listen(ctx context.Context, network, address string) (net.Listener, error)
	Ready() error
	Meter() *tracing.Meter // nil: nothing is measured
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

// SetGateway tells the master which of the attached processes is the gateway of the host. If
// another one was, what it carried is [ErrUnreachable] until this one has trunks.
func (s *System) SetGateway(address string) {
	if l, p := s.peers.foreign, s.peers.find(address); l != nil && p != nil {
		l.setGateway(p)
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

// Failed answers OpenLane: the lane could not be made, and the process may live.
func (c *Carrier) Failed(number uint64, to string, err error) {
	c.Refused(number, to, whyNot(errorReason(fmt.Errorf("%w: %w", ErrLane, err)), true))
}

// Offer says that the process from of another host, of that incarnation, wants a lane to the
// process to of this one. LaneAccepted or LaneDeclined answers, with ref, which is the caller's.
// The caller has made sure that from is of that host. Offer returns false, and there is no answer,
// if no process can have such an address.
func (c *Carrier) Offer(ref uint64, from string, incarnation uint64, to string) bool {
	if checkName(from) != nil || checkName(to) != nil {
		return false
	}
	c.post(laneOffer, from, func(b []byte) []byte {
		return wire.AppendString(binary.AppendUvarint(binary.AppendUvarint(b, ref), incarnation), to)
	})
	return true
}

// Peers says which hosts there may be, by their names: a name of any other is [ErrNoHost].
func (c *Carrier) Peers(names []string) {
	c.post(lanePeers, "", func(b []byte) []byte {
		b = binary.AppendUvarint(b, uint64(len(names)))
		for _, name := range names {
			b = wire.AppendString(b, name)
		}
		return b
	})
}

// LaneEnded says that a lane has ended, with the number that Opened or LaneAccepted had, and that
// all that came on it was taken from its end here. why is the other gateway's word of the end of
// its process; nil: that may live.
func (c *Carrier) LaneEnded(number uint64, local, foreign string, why []byte) {
	c.post(laneEnded, foreign, func(b []byte) []byte {
		return append(wire.AppendString(binary.AppendUvarint(b, number), local), why...)
	})
}

// Rest asks a process of this host, and one of another, to leave the lane between them if they have
// no use for it now: it is one of many, and was used least of late.
func (c *Carrier) Rest(local, foreign string) {
	c.post(laneHint, foreign, func(b []byte) []byte { return wire.AppendString(b, local) })
}

// Rested reports whether a frame says that its process leaves the lane for good, for which neither
// end has a use. The end of its channel, which follows, is then no sign of the end of the process.
func Rested(f *fdipc.Frame) bool {
	if f.Kind != wire.KindLane {
		return false
	}
	r := &wire.Reader{B: f.Payload}
	r.PID("")
	return r.Byte() == laneLeft && !r.Bad
}

// HostUp says that a trunk leads to a host.
func (c *Carrier) HostUp(name, boot string) {
	c.post(laneHostUp, name, func(b []byte) []byte { return wire.AppendString(b, boot) })
}

// HostDown says that no trunk leads to the host with a boot any more, and that its lanes have
// ended.
func (c *Carrier) HostDown(boot string) { c.post(laneHostDown, boot, nil) }

// Holder says which actor or process has a name of the cluster; nil: none has it. It counts once
// Holders has said who has which.
func (c *Carrier) Holder(name string, pid *actor.PID) {
	if pid == nil {
		pid = &actor.PID{}
	}
	c.post(laneHolder, name, func(b []byte) []byte { return wire.AppendPID(b, pid) })
}

// Holders says who has which name of the cluster, in place of what was said before. nil: that is
// not known, and names of the cluster are [ErrUnavailable].
func (c *Carrier) Holders(all map[string]*actor.PID) {
	say := func(b byte) { c.post(laneHolders, "", func(to []byte) []byte { return append(to, b) }) }
	if all == nil {
		say(holdersUnknown)
		return
	}
	say(holdersFollow)
	for name, pid := range all {
		c.Holder(name, pid)
	}
	say(holdersComplete)
}

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
	case laneBegin:
		g.Begin()
	case laneOpen:
		number, from, incarnation := r.Uint(), r.Text(wire.MaxAddress), r.Uint()
		if !r.Bad {
			g.OpenLane(number, from, incarnation, subject, end)
		}
	case laneAccepted:
		ref, number, incarnation := r.Uint(), r.Uint(), r.Uint()
		if !r.Bad {
			g.LaneAccepted(ref, number, incarnation, end)
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

// Boot returns the boot of the host in the address of one of its processes; "" in a tree without a
// cluster.
func Boot(address string) string { return foreign.Boot(address) }

// LocalID returns the ID in the address of a process, if the process is of the same host as the one
// with the address self.
func LocalID(self, address string) (id string, ok bool) {
	boot := foreign.Boot(address)
	return strings.TrimPrefix(address[len(boot):], "."), boot == foreign.Boot(self)
}
