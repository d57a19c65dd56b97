package dispatch

import (
	"encoding/binary"
	"math"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// parkFrame parks the connections that a worker gives back between two requests. It leaves what it
// does not take, and returns the reason for which that is to be refused.
func (d *Dispatcher) parkFrame(from netactor.Worker, f *fdipc.Frame) (reason uint8) {
	lot, err := d.parkingLot()
	d.mu.Lock()
	a := d.acceptors[f.Target]
	reason = wire.ReasonNotOpen
	if d.retired {
		reason = wire.ReasonRetired
	}
	d.mu.Unlock()
	if a == nil || lot == nil && err == nil {
		return reason
	}
	for i, h := range f.Handles {
		if h.Kind() != wire.ConnKind(a.network) {
			h.Refuse(wire.ReasonClosed)
			continue
		}
		p := &balance.PendingConn{Handle: h}
		if at := 8 * i; at+8 <= len(f.Payload) {
			p.Until = max(0, int64(binary.LittleEndian.Uint64(f.Payload[at:])))
		}
		d.mu.Lock()
		over := a.idleClosed
		if !over {
			d.balancer.Park(p, a.listener) // from now on the listener has a connection here
			d.statsChangedLocked()
		}
		d.mu.Unlock()
		if over {
			break
		}
		if h.Claim() != nil {
			d.change(a.listener, func() { d.balancer.Unpark(p) }) // its worker has taken it back
			continue
		}
		p.FD = h.FD()
		p.Peer, p.Local = askAccepted(h, p.FD, a.network)
		h.Tag, p.Parked = p, true
		if lot != nil {
			lot.add(&parkedConn{PendingConn: p, acceptor: a, giver: from.ID})
		} else { // some worker may have it
			startAgain(p, a)
			d.resume(new(actions), p)
		}
	}
	return reason
}

// startAgain begins the way of a parked connection to a worker.
func startAgain(p *balance.PendingConn, a *acceptor) {
	p.At, p.Peek, p.Keyed, p.First, p.OnlyTo = shm.Monotonic(), balance.PeekNotNeeded, false, "", 0
	traceAccepted(p, a)
}

// resume has a connection offered that is parked no more.
func (d *Dispatcher) resume(acts *actions, p *balance.PendingConn) {
	acts.offers = acts.offers[:0]
	d.mu.Lock()
	balance.CountPeek(&p.Listener.Counts, p.Peek)
	a := d.acceptors[p.Listener.Number] // which may end with this connection
	var away []*balance.PendingConn
	if p.Peek == balance.PeekRefused || p.OnlyTo != 0 {
		d.balancer.ResumePeek(p, math.MaxInt)
		away = d.settleJudgedLocked(p, acts, nil)
	} else {
		d.balancer.Resume(p)
	}
	d.updateListenerLocked(acts, p.Listener)
	d.mu.Unlock()
	a.quarantine(away)
	d.run(acts)
}

// parkingLot returns the lot, which is made at the first use; nil after Close if there was none, or
// with the error for which none can be made.
func (d *Dispatcher) parkingLot() (*parkingLot, error) {
	d.mu.Lock()
	lot, closed := d.lot, d.closed
	d.mu.Unlock()
	if lot != nil || closed {
		return lot, nil
	}
	lot, err := newParkingLot(d)
	if err != nil {
		d.logs.Warn("connections cannot be parked", "err", err)
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lot == nil && !d.closed {
		d.lot = lot
		d.waiters.Go(lot.run) // ends with Close
		return lot, nil
	}
	lot.poll.Close()
	return d.lot, nil
}

// maxPasses is how often a connection is sent to be passed on.
const maxPasses = 8

// passed handles the outcome of a parked connection that was sent to a worker to be passed on.
func (d *Dispatcher) passed(p *balance.PendingConn, o fdipc.Outcome) {
	p.Passing = false
	d.mu.Lock()
	a, lot := d.acceptors[p.Listener.Number], d.lot
	d.mu.Unlock()
	switch {
	case o == fdipc.Claimed:
		d.dropParked(p, &p.Listener.Counts.Passed)
	case p.Passes < maxPasses && a != nil:
		lot.add(&parkedConn{PendingConn: p, acceptor: a}) // passes it on again
	default:
		d.dropParked(p, &p.Listener.Counts.Dropped)
	}
}

// dropParked counts the end of a parked connection, and closes it if it is still here.
func (d *Dispatcher) dropParked(p *balance.PendingConn, why *uint64) {
	d.change(p.Listener, func() { d.balancer.DropParked(p, why) })
	closeHere(p) // has no effect on one that was passed on
}

// change calls f, which changes something at l, with the lock held, and acts on it.
func (d *Dispatcher) change(l *balance.ListenerState, f func()) {
	var acts actions
	d.mu.Lock()
	f()
	d.updateListenerLocked(&acts, l)
	d.mu.Unlock()
	d.run(&acts)
}

// closeHere closes a connection that no worker has claimed. A worker that gave it back may still
// have a copy, without which closing alone sends the FIN.
func closeHere(p *balance.PendingConn) {
	if fd := p.Handle.FD(); p.Parked && fd >= 0 {
		shutDown(fd)
	}
	_ = p.Handle.Close()
}
