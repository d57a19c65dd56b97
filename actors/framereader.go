package actors

import (
	"errors"
	"fmt"
	"maps"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// frameReader does what the frames of other processes say, and what their ends mean here. It is the
// peerEvents of peers.
type frameReader struct {
	*parts
	router *router
}

// processEnded ends all that waits for a process, or came from it.
func (fr *frameReader) processEnded(address string, reason supervisor.Reason) {
	fr.names.processEnded(address)
	fr.namesLost(address)
	fr.asks.failAt(address, reason)
	fr.monitors.fireAt(address, reason, true)
	fr.inbound.dropOne(address)
}

// laneDropped ends what waits for the actors of a process that may live on, and for the process if
// there was no lane to another host yet. If there was one, whoever waits for the process has
// another made: without one no process would report its end.
func (fr *frameReader) laneDropped(address string, reason supervisor.Reason, opened bool) {
	fr.namesLost(address)
	fr.asks.failAt(address, reason)
	abroad := fr.isForeign(address)
	remain := fr.monitors.fireAt(address, reason, isNoActor(reason) || abroad && !opened)
	fr.inbound.dropOne(address)
	if abroad && remain {
		_, _ = fr.peers.askLane(address)
	}
}

// namesLost forgets the names of another host, in the master, if the address is that of its master:
// that one could not say any more that they have changed.
func (fr *frameReader) namesLost(address string) {
	if l := fr.peers.foreign; l != nil && fr.isForeign(address) {
		fr.names.changes.processEnded(address)
		if host := l.hostOf(address); host != "" {
			fr.names.hostChanged(host, "")
		}
	}
}

func (fr *frameReader) needsLane(address string) bool {
	return len(fr.asks.askedAt(address)) > 0 || fr.monitors.at(address) || fr.inbound.has(address) || fr.names.changes.tells(address)
}

func (fr *frameReader) laneLeft(address string) { fr.inbound.dropOne(address) }

func (fr *frameReader) hostChanged(host string) { fr.names.hostChanged(host, "") }

func (fr *frameReader) clusterChanged(name string, pid *actor.PID, what byte) {
	fr.names.clusterChanged(name, pid, what)
}

// uplinkLost forgets what processes without a channel to this one wait for.
func (fr *frameReader) uplinkLost() {
	lost := fr.inbound.addresses()
	maps.DeleteFunc(lost, func(a string, _ struct{}) bool { return fr.peers.find(a) != nil })
	fr.inbound.drop(func(a string) bool { _, ok := lost[a]; return ok })
}

// handleFrame takes a frame that arrived from a peer.
func (fr *frameReader) handleFrame(p *peer, f *fdipc.Frame) bool {
	if f.Kind < wire.FirstKind || f.Kind > wire.LastKind {
		return false
	}
	if f.Target != p.incarnation || p.ended.Load() && !p.rested.Load() {
		fr.refused.Add(1)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	r := &wire.Reader{B: f.Payload}
	target := p.lastTarget(f.Lane).target(r, fr.address)
	if r.Bad || !fr.isLocal(target) { // a process does not pass frames on
		fr.countMalformed(p.address, f.Kind)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	fr.handle(p, f, r, target)
	return true
}

// handlesLost takes a frame of a peer whose handles did not arrive.
func (fr *frameReader) handlesLost(p *peer, f *fdipc.Frame) {
	r := &wire.Reader{B: f.Payload}
	target := p.lastTarget(f.Lane).target(r, fr.address)
	if f.Target != p.incarnation || p.ended.Load() || r.Bad || !fr.isLocal(target) {
		fr.refused.Add(1)
		return
	}
	switch f.Kind {
	case wire.KindUser:
		var sender *actor.PID
		if f.Flags&wire.FlagSender != 0 {
			sender = r.PID(fr.address)
		}
		if r.Bad {
			fr.countMalformed(p.address, f.Kind)
			return
		}
		if target.Id == askID {
			fr.asks.finish(target.RequestId, nil, fdipc.ErrNoFiles)
			return
		}
		fr.router.undeliverable(target, nil, sender, fdipc.ErrNoFiles)
	case wire.KindLane:
		op, address := r.Byte(), r.Text(wire.MaxAddress)
		if p.address == fr.peers.uplinkAddress() && fr.peers.onGateway(op, address, nil, r) {
			return
		}
		incarnation, number := r.Uint(), r.Uint()
		if r.Bad || op != laneGrant || p.address != fr.peers.uplinkAddress() {
			fr.countMalformed(p.address, f.Kind)
			return
		}
		fr.peers.laneHandleLost(address, incarnation, number)
	default:
		fr.countMalformed(p.address, f.Kind) // no other has handles
	}
}

// handle does what a frame for this process says.
func (fr *frameReader) handle(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	if f.Kind != wire.KindUser && f.Kind != wire.KindLane {
		f.Refuse(fdipc.ReasonUnknown) // no other frame has handles
	}
	if f.Kind != wire.KindTypes && !p.talks.Load() {
		p.talks.Store(true)
	}
	switch f.Kind {
	case wire.KindUser:
		fr.onUser(p, f, r, target)
	case wire.KindStop:
		fr.onStop(p, f, r, target)
	case wire.KindMonitor, wire.KindDemonitor:
		fr.onMonitor(p, f, r, target)
	case wire.KindDown:
		fr.onDown(p, r)
	case wire.KindFailed:
		fr.onFailed(p, r, target)
	case wire.KindLane:
		fr.peers.onLane(p, f, r)
	case wire.KindProcessEnded:
		fr.onProcessEnded(p, r)
	case wire.KindAskEnd:
		fr.onAskEnd(p, r)
	case wire.KindNameRequest:
		fr.names.onRequest(p, r)
	case wire.KindNameReply:
		fr.names.onReply(p, r)
	case wire.KindNameChanged:
		fr.names.onChanged(p, r)
	case wire.KindTypes:
		fr.onTypes(p, r)
	default:
		fr.countMalformed(p.address, f.Kind) // of a later release
	}
}

func (fr *frameReader) onUser(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	var sender *actor.PID
	var header map[string]string
	if f.Flags&wire.FlagSender != 0 {
		sender = r.PID(fr.address, p.address, askID)
	}
	if f.Flags&wire.FlagHeader != 0 {
		header = r.Header()
	}
	if r.Bad {
		fr.countMalformed(p.address, f.Kind)
		f.Refuse(fdipc.ReasonUnknown)
		return
	}
	asked := sender != nil && sender.Id == askID && !fr.isLocal(sender)
	if asked {
		if !fr.inbound.beginAsk(&p.share, sender) {
			f.Refuse(fdipc.ReasonOverload)
			fr.router.failAsk(sender, errTooManyAsks)
			return
		}
		if p.ended.Load() || fr.peers.find(sender.Address) == nil && !fr.peers.hasUplink() {
			fr.inbound.endAsk(sender) // this process will not hear of its end
		}
	}
	last := p.lastTarget(f.Lane)
	inc := last.actor(&fr.local.table, target)
	if inc == nil && (reservedID(target.Id) || len(r.B) > maxDeadLetter && !fr.reaches(target)) {
		f.Refuse(fdipc.ReasonUnknown)
		fr.router.undeliverable(target, nil, sender, ErrNoActor)
		return
	}
	msg, err := last.types.Read(r.B)
	if err == nil {
		err = giveHandles(msg, f.Handles)
	}
	if err != nil {
		fr.closeHandles(msg)
		fr.malformed.Add(1)
		f.Refuse(fdipc.ReasonUnknown)
		if target.Id == askID { // an answer that can not be read
			fr.asks.finish(target.RequestId, nil, err)
			return
		}
		fr.router.undeliverable(target, nil, sender, err)
		return
	}
	header = putTrace(header, &f.Trace)
	var m any = msg
	if sender != nil || header != nil {
		m = &actor.MessageEnvelope{Header: header, Message: msg, Sender: sender}
	}
	if err := fr.deliverSafely(inc, target, m, len(f.Payload)); err != nil {
		fr.router.undeliverable(target, msg, sender, err)
	}
}

// maxDeadLetter is the length, in bytes, up to which a message of another process is decoded only
// to name its type in a dead letter: decoded it may take many times that. A longer one becomes a
// dead letter without a type.
const maxDeadLetter = 64 << 10

// reaches reports whether a message for target reaches something in this process other than an
// actor of this package.
func (fr *frameReader) reaches(target *actor.PID) bool {
	switch target.Id {
	case askID:
		return fr.asks.has(target.RequestId)
	case processID:
		return false
	}
	_, ok := fr.proto.process(target.Id)
	return ok
}

// deliverSafely delivers a message of a peer. A panic, whatever the peer has sent, becomes an
// error.
func (fr *frameReader) deliverSafely(inc *incarnation, target *actor.PID, message any, bytes int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", ErrMalformed, v)
		}
	}()
	if inc != nil {
		return inc.box.postPeer(message, bytes)
	}
	return fr.router.deliverLocal(noContext, target, message)
}

// onStop serves a Stop or Poison; one with a ref waits for the end.
func (fr *frameReader) onStop(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	how, watcher, ref := r.Byte(), r.Text(wire.MaxAddress), r.Uint()
	if r.Bad || how > wire.StopPoison || watcher != p.address {
		fr.countMalformed(p.address, f.Kind)
		return
	}
	switch {
	case reservedID(target.Id):
		if ref != 0 {
			fr.peers.sendDown(watcher, ref, noActor, endNoActor)
		}
	case ref == 0 || target.Id == processID:
		fr.local.stop(target.Id, how, watcher)
	case how == wire.StopNormal:
		fr.countMalformed(p.address, f.Kind)
	default:
		fr.serveMonitor(p, target, watcher, ref, how)
	}
}

// onMonitor serves the monitor of another process.
func (fr *frameReader) onMonitor(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	watcher, ref := r.Text(wire.MaxAddress), r.Uint()
	if r.Bad || ref == 0 || watcher != p.address {
		fr.countMalformed(p.address, f.Kind)
		return
	}
	if f.Kind == wire.KindDemonitor {
		if id, ok := fr.inbound.takeMonitor(watcher, ref); ok {
			fr.local.unwatch(id, watchKey{address: watcher, ref: ref})
		}
		return
	}
	fr.serveMonitor(p, target, watcher, ref, wire.StopNormal)
}

func (fr *frameReader) serveMonitor(p *peer, target *actor.PID, watcher string, ref uint64, stop byte) {
	k := watchKey{address: watcher, ref: ref}
	switch err := fr.inbound.addMonitor(watcher, ref, target.Id); {
	case errors.Is(err, ErrTooMany):
		fr.peers.sendDown(watcher, ref, errorReason(err), endNoActor)
		return
	case err != nil:
		fr.countMalformed(p.address, wire.KindMonitor)
		return
	}
	ok := fr.local.watch(target.Id, k, stop, watcher, func(reason supervisor.Reason, how endCause) {
		if _, ok := fr.inbound.takeMonitor(watcher, ref); ok {
			fr.peers.sendDown(watcher, ref, reason, how)
		}
	})
	if !ok {
		if _, ok := fr.inbound.takeMonitor(watcher, ref); ok {
			fr.peers.sendDown(watcher, ref, noActor, endNoActor)
		}
	} else if !fr.inbound.hasMonitor(watcher, ref) { // dropped meanwhile, with its process
		fr.local.unwatch(target.Id, k)
	}
}

func (fr *frameReader) onDown(p *peer, r *wire.Reader) {
	ref, how, reason := r.Uint(), endCause(r.Byte()), readReason(r)
	if r.Bad || how > endProcess {
		fr.countMalformed(p.address, wire.KindDown)
		return
	}
	if m := fr.monitors.get(ref, p.address); m != nil {
		fr.monitors.fire(m, reason, how)
	}
}

func (fr *frameReader) onFailed(p *peer, r *wire.Reader, target *actor.PID) {
	if target.Id != askID {
		fr.countMalformed(p.address, wire.KindFailed)
		return
	}
	err := readError(r, fr.asks.target(target.RequestId))
	if r.Bad {
		fr.countMalformed(p.address, wire.KindFailed)
		return
	}
	fr.asks.finish(target.RequestId, nil, err)
}

// onProcessEnded takes the master's word that a process has ended.
func (fr *frameReader) onProcessEnded(p *peer, r *wire.Reader) {
	address := r.Text(wire.MaxAddress)
	reason := readReason(r)
	if r.Bad || p.address != fr.peers.uplinkAddress() || checkName(address) != nil || address == p.address {
		fr.countMalformed(p.address, wire.KindProcessEnded)
		return
	}
	fr.peers.processEnded(address, reason)
	if g := fr.peers.gateway.Load(); g != nil && !fr.isForeign(address) {
		(*g).ProcessEnded(address, whyNot(reason, false))
	}
}

func (fr *frameReader) onAskEnd(p *peer, r *wire.Reader) {
	asker := r.PID("")
	if r.Bad || asker.Address != p.address {
		fr.countMalformed(p.address, wire.KindAskEnd)
		return
	}
	fr.inbound.endAsk(asker)
}

// onTypes takes the list of a peer's types.
func (fr *frameReader) onTypes(p *peer, r *wire.Reader) {
	if !p.setTypes(r.B) {
		fr.countMalformed(p.address, wire.KindTypes)
	}
}
