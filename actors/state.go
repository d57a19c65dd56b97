package actors

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// The format of a state: what this package writes, and the oldest format whose reader may read it.
// A reader skips fields that it does not know; so the zero value of a field means what held before
// there was the field.
const (
	stateFormat = 1
	stateReads  = 1
)

// systemState is what a System hands to the System of the next image of its process, as CBOR with
// these names.
type systemState struct {
	Format, Reads int

	Address     string
	Incarnation uint64

	// The latest numbers, which must not come again.
	LastID      uint64 // of an actor without a name
	LastAsk     uint64
	LastMonitor uint64
	LastChange  uint64 // of a name
	LastLane    uint64

	Peers    map[string]*peerState
	Ended    []endedState // oldest first
	Names    map[string]nameState
	Monitors map[uint64]monitorState // of this process, but for those of names
	Actors   map[string]*actorState
	Foreign  *foreign.Saved `cbor:",omitempty"` // of the master of a cluster's host
}

// peerState is an attached process.
type peerState struct {
	Incarnation uint64
	Types       []byte            // as it sent them; empty: not known
	Notices     []frameState      // that it was not sent
	Lanes       map[string]uint64 // to those with a higher address
	Caches      []string          // keys of names
	Monitors    map[uint64]string // ids of the actors here that it watches
	Asks        []*actor.PID      // that came by it and are not answered
	Asked       []uint32          // the asks of this process that it has
}

// frameState is a frame for another process, or a message that waits for an actor: as in a frame,
// as a Down, which is KindDown with the PID before the reason, or Lost.
type frameState struct {
	Kind    uint8
	Lane    uint8
	Flags   uint8
	Trace   []byte
	Payload []byte
	Lost    string // the type of a message that does not go along
}

type endedState struct {
	Address string
	Reason  []byte // as in a frame
}

type nameState struct {
	PID     *actor.PID
	Monitor uint64 // of the holder; zero: it is of this process
}

type monitorState struct {
	PID    *actor.PID // as it was given
	Target *actor.PID // what it stands for
	Owner  string     // id of the actor that hears of it; empty: it does not go along
	Watch  bool       // protoactor's
}

type actorState struct {
	Handover *Handover
	Messages []frameState // that wait, in order
}

var decodeState = codec.StateDecoder[systemState]()

// check returns an error that names what of the state makes no sense.
func (st *systemState) check(cfg Config) error {
	if st.Reads > stateFormat {
		return fmt.Errorf("%w: format %d is for readers of %d, this is one of %d", ErrSkew, st.Format, st.Reads, stateFormat)
	}
	if st.Address != cfg.Address || st.Incarnation != cfg.Incarnation {
		return fmt.Errorf("address %q, incarnation %d: this process has %q, %d", st.Address, st.Incarnation, cfg.Address, cfg.Incarnation)
	}
	bad := func(field string, key any) error { return fmt.Errorf("%w: %s of %v", ErrMalformed, field, key) }
	for i, e := range st.Ended {
		r := &wire.Reader{B: e.Reason}
		if readReason(r); r.Bad {
			return bad("ended: reason", i)
		}
	}
	for address, p := range st.Peers {
		switch {
		case p == nil || checkName(address) != nil || address == st.Address:
			return bad("peers: address", fmt.Sprintf("%q", address))
		case slices.Contains(p.Asks, nil):
			return bad("peers: asks", address)
		case slices.ContainsFunc(p.Notices, func(f frameState) bool { return f.Lane > uint8(fdipc.Data) }):
			return bad("peers: lane of notices", address)
		}
		r := &wire.Reader{B: p.Types}
		if codec.ReadPeerTypes(r); p.Types != nil && r.Bad {
			return bad("peers: types", address)
		}
	}
	for name, one := range st.Names {
		if one.PID == nil {
			return bad("names: pid", name)
		}
	}
	for number, one := range st.Monitors {
		if one.PID == nil || one.Target == nil {
			return bad("monitors: pid", number)
		}
	}
	for name, a := range st.Actors {
		if a == nil || a.Handover != nil && slices.Contains(a.Handover.Asks, nil) {
			return bad("actors: asks", name)
		}
	}
	return nil
}

// state collects what goes along. The actors are on hold.
func (s *System) state(requests map[*incarnation]*handOverRequest) (*systemState, error) {
	st := &systemState{Format: stateFormat, Reads: stateReads, Address: s.address, Incarnation: s.incarnation, LastID: s.proto.firstID, LastAsk: s.asks.calls.Last()}
	if sys := s.proto.ifMade(); sys != nil {
		st.LastID = atomic.LoadUint64(&sys.ProcessRegistry.SequenceID)
	}
	err := s.peers.addState(st)
	s.names.addState(st)
	s.monitors.addState(st)
	s.inbound.addState(st)
	s.asks.calls.Fail(func(n *askNote) error {
		if p := st.Peers[n.at]; p != nil {
			p.Asked = append(p.Asked, n.id)
		}
		return nil // they end with this image
	})
	st.Actors = make(map[string]*actorState)
	for inc, req := range requests {
		a := &actorState{Handover: req.handover}
		if !inc.stale.Load() {
			for _, m := range inc.box.queued() {
				if !isPill(m) || a.Handover != nil { // else it has ended
					a.Messages = append(a.Messages, s.messageState(inc.pid, m))
				}
			}
		}
		if a.Handover != nil || a.Messages != nil {
			st.Actors[inc.id] = a
		}
	}
	return st, err
}

func (ps *peers) addState(st *systemState) (err error) {
	ps.mu.RLock()
	for _, a := range ps.ended.order {
		st.Ended = append(st.Ended, endedState{a, appendReason(nil, ps.ended.reasons[a])})
	}
	st.LastLane = ps.broker.last
	newest := maps.Clone(ps.broker.newest)
	ps.mu.RUnlock()
	st.Peers = make(map[string]*peerState)
	if l := ps.foreign; l != nil {
		l.mu.Lock()
		st.Foreign = l.rules.Save()
		st.Foreign.Gateway = l.gateway
		l.mu.Unlock()
	}
	for _, p := range ps.all() {
		if p.lane {
			continue // to another host: it ends
		}
		one := &peerState{Incarnation: p.incarnation, Lanes: make(map[string]uint64)}
		p.mu.Lock()
		one.Types = bytes.Clone(p.types)
		for _, f := range slices.Concat(p.backlog[fdipc.Control].notices, p.backlog[fdipc.Data].notices) {
			if len(f.Handles) > 0 {
				err = fmt.Errorf("process %s: %w: handles wait for it", p.address, ErrBusy)
			}
			one.Notices = append(one.Notices, frameStateOf(&f))
		}
		p.mu.Unlock()
		st.Peers[p.address] = one
	}
	for pair, number := range newest {
		if p := st.Peers[pair.a]; p != nil {
			p.Lanes[pair.b] = number
		}
	}
	return err
}

func frameStateOf(f *fdipc.Frame) frameState {
	fs := frameState{Kind: uint8(f.Kind), Lane: uint8(f.Lane), Flags: f.Flags, Payload: bytes.Clone(f.Payload)}
	if f.Trace != (fdipc.TraceContext{}) {
		fs.Trace = f.Trace[:]
	}
	return fs
}

func (fs *frameState) trace() (t fdipc.TraceContext) {
	copy(t[:], fs.Trace)
	return t
}

func (n *names) addState(st *systemState) {
	st.Names = make(map[string]nameState)
	n.mu.RLock()
	for name, reg := range n.registered {
		if n.isLocal(reg.pid) {
			st.Names[name] = nameState{PID: reg.pid}
		} else if reg.mon != nil { // else it is not registered yet
			st.Names[name] = nameState{reg.pid, reg.mon.ref}
		}
	}
	n.mu.RUnlock()
	c := &n.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	st.LastChange = c.last
	for key, who := range c.remembering {
		for address := range who {
			if p := st.Peers[address]; p != nil {
				p.Caches = append(p.Caches, key)
			}
		}
	}
}

func (t *monitors) addState(st *systemState) {
	ofName := make(map[uint64]bool)
	for _, name := range st.Names {
		ofName[name.Monitor] = true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	st.LastMonitor = t.last
	st.Monitors = make(map[uint64]monitorState)
	for ref, m := range t.open {
		if m.target == nil || ofName[ref] {
			continue
		}
		one := monitorState{PID: m.pid, Target: m.target}
		if m.owner != nil {
			one.Owner, one.Watch = m.owner.id, m.protoWatch != protoWatchKey{}
		}
		st.Monitors[ref] = one
	}
}

func (in *inbound) addState(st *systemState) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for k, share := range in.asks {
		if p := st.Peers[share.address]; p != nil {
			p.Asks = append(p.Asks, &actor.PID{Address: k.address, Id: askID, RequestId: k.request})
		}
	}
	for address, set := range in.monitors {
		if p := st.Peers[address]; p != nil {
			p.Monitors = maps.Clone(set)
		}
	}
}

// messageState encodes a message that waits for an actor.
func (s *System) messageState(target *actor.PID, message any) frameState {
	header, msg, sender := unwrap(message)
	if d, ok := msg.(*Down); ok && sender == nil {
		return frameState{Kind: uint8(wire.KindDown), Payload: appendReason(wire.AppendPID(nil, d.PID), d.Reason)}
	}
	fb := getFrameBuffer()
	defer fb.free()
	if _, ok := msg.(HandleCarrier); !ok && s.encode(fb, target, header, msg, sender) == nil {
		return frameStateOf(&fb.frame)
	}
	return frameState{Lost: fmt.Sprintf("%T", msg)}
}

// message decodes what messageState returned. On an error, message has the sender alone.
func (s *System) message(fs *frameState) (message any, err error) {
	r := &wire.Reader{B: fs.Payload}
	target := r.PID(s.address)
	if fs.Kind == uint8(wire.KindDown) {
		d := &Down{PID: target, Reason: readReason(r)}
		if r.Bad {
			err = ErrMalformed
		}
		return d, err
	}
	e := &actor.MessageEnvelope{}
	var header map[string]string
	if fs.Flags&wire.FlagSender != 0 {
		e.Sender = r.PID(s.address)
	}
	if fs.Flags&wire.FlagHeader != 0 {
		header = r.Header()
	}
	if r.Bad || fs.Lost != "" {
		return &actor.MessageEnvelope{}, ErrReplaced
	}
	var types codec.MessageReader
	if e.Message, err = types.Read(r.B); err != nil {
		return e, err
	}
	trace := fs.trace()
	if header = putTrace(header, &trace); header == nil && e.Sender == nil {
		return e.Message, nil
	}
	e.Header = header
	return e, nil
}
