package actors

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// peers owns the channels to other processes: those that were attached, and the lanes between
// siblings that it makes itself (lanes.go; in the master, lanebroker.go). It knows which processes
// have ended.
type peers struct {
	*localProcess
	events    peerEvents
	laneGrace time.Duration
	laneIdle  time.Duration

	mu        sync.RWMutex
	byAddress map[string]*peer
	uplink    string // the master; "": this is it
	ended     endedProcesses
	broken    map[string]uint64  // address -> number of the newest lane that was given up
	left      map[*peer]struct{} // lanes that were left, and that the other side has not closed
	broker    laneBroker         // of the master

	foreign *foreignLanes           // of the master of a cluster's host; otherwise nil
	gateway atomic.Pointer[Gateway] // this process is one; otherwise nil
	idle    *time.Timer             // looks for lanes that are idle; nil: there are none to look at

	recent [16]atomic.Pointer[peer] // some of byAddress
}

// peerEvents is what the rest of a System does about the peers. Its methods are called without a
// lock, by any goroutine.
type peerEvents interface {
	// handleFrame takes a frame of a peer. It returns false if the kind is not of this package.
	handleFrame(p *peer, f *fdipc.Frame) bool
	// handlesLost takes a frame of a peer whose handles did not arrive.
	handlesLost(p *peer, f *fdipc.Frame)
	// processEnded ends all that waits for a process, or came from it.
	processEnded(address string, reason supervisor.Reason)
	// laneDropped ends what waits for the actors of a process that may live on.
	laneDropped(address string, reason supervisor.Reason, opened bool)
	// hostChanged forgets what the names of another host stand for, in the master.
	hostChanged(host string)
	// clusterChanged notes who holds a name of the cluster, in the master; without a name, what.
	clusterChanged(name string, pid *actor.PID, what byte)
	// needsLane reports whether something here waits for the process with an address, or something
	// there for this one, that only the end of the lane would end.
	needsLane(address string) bool
	// laneLeft ends what the process with an address has in this one. It may live on.
	laneLeft(address string)
	// uplinkLost forgets what processes without a channel to this one wait for: no process will
	// tell this one of their end.
	uplinkLost()
}

func newPeers(proc *localProcess, events peerEvents) *peers {
	ps := &peers{
		localProcess: proc,
		events:       events,
		laneGrace:    defaultLaneGrace,
		laneIdle:     defaultLaneIdle,
		byAddress:    make(map[string]*peer),
		broken:       make(map[string]uint64),
		left:         make(map[*peer]struct{}),
		broker:       laneBroker{newest: make(map[addressPair]uint64), makeEnds: laneEnds},
	}
	if proc.boot != "" && proc.address == proc.boot+masterSuffix {
		ps.foreign = newForeignLanes(ps)
	}
	return ps
}

func (ps *peers) attach(address string, incarnation uint64, c Conn) error {
	if err := checkName(address); err != nil || address == ps.address {
		return ErrName
	}
	p := newPeer(ps.localProcess, ps.slot(address), address)
	p.incarnation = incarnation
	p.open(c)
	for {
		ps.mu.Lock()
		old := ps.byAddress[address]
		switch {
		case ps.closed.Load():
			ps.mu.Unlock()
			return ErrClosed
		case old == nil:
			ps.byAddress[address] = p
			ps.ended.forget(address)
			ps.mu.Unlock()
			ps.announceTypes(p)
			return nil
		case !old.lane && old.incarnation == incarnation && old.pending(): // it was restored
			ps.mu.Unlock()
			if old.open(c) {
				ps.announceTypes(old)
			}
			return nil
		case !old.lane && old.incarnation == incarnation && old.conn == c:
			ps.mu.Unlock()
			return nil
		case !old.lane && old.incarnation >= incarnation:
			ps.mu.Unlock()
			return fmt.Errorf("%w: %d, attached is %d", ErrStale, incarnation, old.incarnation)
		}
		ps.mu.Unlock()
		ps.detach(old, errorReason(ErrStale))
	}
}

// detach takes out a peer whose process has ended for a reason.
func (ps *peers) detach(p *peer, reason supervisor.Reason) {
	ps.mu.Lock()
	if !ps.removeLocked(p) {
		ps.mu.Unlock()
		return
	}
	delete(ps.broken, p.address)
	ps.broker.processEnded(p.address)
	if !isUnreachable(reason) {
		ps.ended.add(p.address, reason)
	}
	master := ps.uplink == "" && !p.lane // of the end of a process of another host those are told that have a lane to it
	orphaned := ps.uplink != "" && p.address == ps.uplink
	var rest []*peer
	for _, other := range ps.byAddress {
		if master && !other.lane || orphaned && other.pending() {
			rest = append(rest, other)
		}
	}
	ps.mu.Unlock()
	p.close(reason)
	ps.events.processEnded(p.address, reason)
	for _, other := range rest {
		if orphaned { // no process will give it a lane
			ps.detach(other, reason)
			continue
		}
		// One that has said nothing waits for none, and learns of this end when it asks for a lane:
		// most are workers that never use actors, and each end would wake them all.
		if other.talks.Load() {
			other.postProcessEnded(p.address, reason)
		}
	}
	if master && ps.foreign != nil {
		ps.foreign.processEnded(p.address)
	}
	if orphaned {
		ps.events.uplinkLost()
	}
}

// removeLocked takes a peer out of the table. It returns false if it is not there any more.
func (ps *peers) removeLocked(p *peer) bool {
	if ps.byAddress[p.address] != p {
		return false
	}
	delete(ps.byAddress, p.address)
	return true
}

// processEnded takes the master's word that a process has ended. An attached one is left to Detach,
// which comes after its last messages.
func (ps *peers) processEnded(address string, reason supervisor.Reason) {
	ps.mu.Lock()
	if !isUnreachable(reason) {
		ps.ended.add(address, reason)
	}
	delete(ps.broken, address)
	p := ps.byAddress[address]
	ps.mu.Unlock()
	switch {
	case p == nil:
		ps.events.processEnded(address, reason)
	case p.lane:
		ps.laneProcessEnded(p, reason)
	}
}

// endedFor returns the reason for which a process has ended, if it is known to have.
func (ps *peers) endedFor(address string) (reason supervisor.Reason, ended bool) {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.ended.find(address)
}

// find returns the peer with an address, attached or by lane; nil: there is none. The peers that
// were found last stand before the map: each message asks.
func (ps *peers) find(address string) *peer {
	slot := ps.slot(address)
	if p := slot.Load(); p != nil && p.address == address && !p.ended.Load() {
		return p
	}
	ps.mu.RLock()
	p := ps.byAddress[address]
	ps.mu.RUnlock()
	if p == nil {
		return nil
	}
	slot.Store(p)
	// close sets ended, then clears the slot: one of the two sees the other.
	if p.ended.Load() {
		slot.CompareAndSwap(p, nil)
	}
	return p
}

// slot is where the peer with an address is cached.
func (ps *peers) slot(address string) *atomic.Pointer[peer] {
	if address == "" {
		return &ps.recent[0]
	}
	return &ps.recent[address[len(address)-1]%byte(len(ps.recent))]
}

// all returns the peers.
func (ps *peers) all() []*peer {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return slices.Collect(maps.Values(ps.byAddress))
}

// lanes counts the open channels to siblings and, in the master, between children.
func (ps *peers) lanes() int {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	n := len(ps.broker.newest)
	for _, p := range ps.byAddress {
		if p.lane && !p.pending() {
			n++
		}
	}
	return n
}

func (ps *peers) setUplink(address string) {
	ps.mu.Lock()
	ps.uplink = address
	ps.mu.Unlock()
}

// uplinkAddress returns the address of the master; "": this is it.
func (ps *peers) uplinkAddress() string {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	return ps.uplink
}

func (ps *peers) hasUplink() bool { return ps.uplinkAddress() != "" }

// hostOf returns the name of the host that p is the master of; "": it is no master of another host.
func (ps *peers) hostOf(p *peer) string {
	if ps.foreign == nil || !p.lane {
		return ""
	}
	return ps.foreign.hostOf(p.address)
}

// masterOf returns the address of the master that knows a name of another host.
func (ps *peers) masterOf(name string) (string, error) {
	host, _, ok := abroad(name)
	if !ok || ps.foreign == nil {
		return "", ErrUnreachable
	}
	return ps.foreign.master(host)
}

// route returns the peer to which a frame for an address goes. In a child it asks for a lane where
// there is none yet.
func (ps *peers) route(address string) (*peer, error) {
	if p := ps.find(address); p != nil {
		return p, nil
	}
	return ps.askLane(address)
}

// postTo posts a notice for a PID of another process. more appends what follows the target.
func (ps *peers) postTo(target *actor.PID, kind fdipc.Kind, more func([]byte) []byte) error {
	p, err := ps.route(target.Address)
	if err != nil {
		return err
	}
	lane := fdipc.Data
	if kind == wire.KindStop || kind == wire.KindNameRequest {
		lane = fdipc.Control
	}
	p.post(ps.frame(kind, lane), func(b []byte) []byte { return more(wire.AppendPID(b, target)) })
	return nil
}

// sendDown tells the system at an address that what its monitor ref watched has ended.
func (ps *peers) sendDown(address string, ref uint64, r supervisor.Reason, how endCause) {
	_ = ps.postTo(ProcessPID(address), wire.KindDown, func(b []byte) []byte { // ended: nothing waits
		b = binary.AppendUvarint(b, ref)
		return appendReason(append(b, byte(how)), r)
	})
}

// giveUpAsk tells the process with an address that an ask of this process has ended.
func (ps *peers) giveUpAsk(address string, ask *actor.PID) {
	_ = ps.postTo(ProcessPID(address), wire.KindAskEnd, func(b []byte) []byte { return wire.AppendPID(b, ask) })
}

// closeAll drops all peers, closes the lanes, and waits for these under ctx.
func (ps *peers) closeAll(ctx context.Context) (errs []error) {
	ps.mu.Lock()
	all := ps.byAddress
	ps.byAddress = make(map[string]*peer)
	if ps.idle != nil {
		ps.idle.Stop()
	}
	var lanes []*fdipc.Conn
	for p := range ps.left {
		lanes = append(lanes, p.laneConn)
	}
	ps.mu.Unlock()
	for _, c := range lanes {
		_ = c.Close()
	}
	if ps.foreign != nil { // close the ends that wait
		ps.foreign.step(foreign.Event{Kind: foreign.Suspended})
	}
	for _, p := range all {
		if c := p.close(errorReason(ErrClosed)); c != nil {
			lanes = append(lanes, c)
		}
	}
	for _, c := range lanes {
		select {
		case <-c.Done():
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("a lane: %w", context.Cause(ctx)))
		}
	}
	announcers.mu.Lock()
	delete(announcers.all, ps)
	announcers.mu.Unlock()
	return errs
}
