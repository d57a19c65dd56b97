package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// HandleFrame handles a frame of this package's kinds from a worker or from the listener process.
// It returns false, and leaves the frame untouched, if it does not handle the kind. It may open a
// socket, and does not block on a peer.
func (t *Table) HandleFrame(from netactor.Worker, c *fdipc.Conn, f *fdipc.Frame) bool {
	switch f.Kind {
	case wire.KindListen:
		t.listenFrame(from, f, nil)
	case wire.KindShare:
		t.shareFrame(from, f)
	case wire.KindClosed:
		c.ResolveOffers() // also closes the master's copy of the socket that it sent to the worker
		number := f.Target
		t.step(func() []effect { return t.state.closed(from.ID, number) })
	case wire.KindGiveUp:
		c.ResolveOffers()
		seq := f.Target
		t.step(func() []effect { return t.state.giveUp(from.ID, seq) })
	case wire.KindBroken:
		t.brokenFrame(from, c, f)
	case wire.KindShutAck, wire.KindStats:
		t.listenerFrame(c, f)
	default:
		return false
	}
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

var errTableClosed = errors.New("netactor: closed")

// listenFrame handles a request. given is the socket that came with it, or nil.
func (t *Table) listenFrame(from netactor.Worker, f *fdipc.Frame, given *socket.Bound) {
	r, err := wire.DecodeRequest(f.Payload)
	if given != nil && err == nil {
		r, err = requestFor(given, r)
	}
	p := pendingRequest{worker: from.ID, owner: from.Pool, seq: f.Target, req: socket.SocketSpec{Request: r}, socket: given}
	if t.cfg.Rules != nil {
		rules := t.cfg.Rules(from.Pool)
		p.rules = &rules
	}
	t.step(func() []effect {
		if _, known := t.workers[from.ID]; !known {
			err = errors.Join(err, fmt.Errorf("netactor: worker %d is not known", from.ID))
		}
		if t.closed {
			err = errTableClosed
		}
		if err == nil {
			return t.state.listen(p)
		}
		out := []effect{{kind: doReply, request: pendingRequest{worker: p.worker, seq: p.seq}, reply: wire.Failed(err)}}
		if given != nil {
			out = append(out, effect{kind: doDiscard, socket: given})
		}
		return out
	})
}

// shareFrame handles a listening socket that a worker opened itself.
func (t *Table) shareFrame(from netactor.Worker, f *fdipc.Frame) {
	err := errors.New("netactor: share without a socket")
	var s *socket.Bound
	if len(f.Handles) == 1 {
		s, err = socket.Receive(f.Handles[0])
	}
	if err != nil {
		p := pendingRequest{worker: from.ID, seq: f.Target}
		t.step(func() []effect { return []effect{{kind: doReply, request: p, reply: wire.Failed(err)}} })
		return
	}
	t.listenFrame(from, f, s)
}

// requestFor completes the request that a shared socket came with: it takes the address from the
// kernel.
func requestFor(s *socket.Bound, r netactor.Request) (netactor.Request, error) {
	network, addr, err := s.Address()
	if err != nil {
		return r, err
	}
	r.FD, r.Network, r.Address = 0, network, addr
	if network == "tcp" {
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			return r, err
		}
		if ap.Addr().Is6() && s.V6only() {
			network = "tcp6"
		}
		r.Network, ap = address.Canonical(network, ap)
		r.Address = ap.String()
	}
	return r, r.Validate()
}

// listenerFrame handles a KindShutAck or KindStats of the listener process.
func (t *Table) listenerFrame(c *fdipc.Conn, f *fdipc.Frame) {
	t.mu.Lock()
	known := t.listenerProcess != nil && c == t.listenerProcess.c
	t.mu.Unlock()
	switch {
	case !known:
	case f.Kind == wire.KindShutAck:
		c.ResolveOffers() // the copy that we sent holds the port too, until we learn that it was claimed
		number := f.Target
		t.step(func() []effect { return t.state.shutAcked(number) })
	case f.Target == 0:
		t.mu.Lock()
		t.lastStats, t.lastStatsAt = slices.Clone(f.Payload), time.Now()
		t.mu.Unlock()
	default:
		t.stats.Finish(f.Target, slices.Clone(f.Payload), nil)
	}
}

// brokenFrame handles a report, from the listener process or from a worker that accepts itself,
// that a socket does not accept any more.
func (t *Table) brokenFrame(from netactor.Worker, c *fdipc.Conn, f *fdipc.Frame) {
	t.mu.Lock()
	s := t.state.sockets[f.Target]
	known := s != nil && !s.refusing && (t.listenerProcess != nil && c == t.listenerProcess.c || slices.Contains(s.holders(), from.ID))
	t.mu.Unlock()
	if !known {
		return
	}
	if len(f.Payload) > 0 { // else the socket did not arrive, and its receiver has logged that
		t.logs.Warn("listener cannot accept", "listener", t.title(f.Target), "worker", from.Name, "err", string(f.Payload[:min(len(f.Payload), 200)]))
	}
	number := f.Target
	t.step(func() []effect { return t.state.broken(number) })
}
