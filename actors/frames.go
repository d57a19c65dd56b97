package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// HandleFrame takes a frame that arrived from the process with an address, and
// reports whether its kind is one of this package's. It is to be called from the Conn's handler,
// in order per lane. The frame is borrowed until return.
//
// It does not wait, but for one case: a message for an actor whose bounded
// mailbox is full and has the policy [Wait] holds up the data lane for at most
// SendWait. No content of a frame makes it panic; what can not be read, or may
// not be sent by this process, is counted in [Stats] and answered where an asker can be told.
func (s *System) HandleFrame(from string, f *fdipc.Frame) bool {
	if f.Kind < wire.FirstKind || f.Kind > wire.LastKind {
		return false
	}
	if p := s.attached(from); p != nil && !p.lane {
		return s.handleFrom(p, f)
	}
	s.refused.Add(1)
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

// handleFrom takes a frame that arrived on a peer.
func (s *System) handleFrom(p *peer, f *fdipc.Frame) bool {
	if f.Kind < wire.FirstKind || f.Kind > wire.LastKind {
		return false
	}
	if f.Target != p.incarnation || p.ended.Load() {
		s.refused.Add(1)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	r := &wire.Reader{B: f.Payload}
	target := p.lastTarget(f.Lane).target(r, s.cfg.Address)
	if r.Bad || !s.local(target) { // nobody passes frames on
		s.countMalformed(p, f.Kind)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	s.handle(p, f, r, target)
	return true
}

// HandlesLost takes a frame of a process whose handles did not arrive, for [fdipc.Config].NoFiles of the channel that
// was attached. What waits for it fails with an error that wraps [fdipc.ErrNoFiles]. It is false for a kind that is not
// of this package.
func (s *System) HandlesLost(from string, f *fdipc.Frame) bool {
	if f.Kind < wire.FirstKind || f.Kind > wire.LastKind {
		return false
	}
	if p := s.attached(from); p != nil && !p.lane {
		s.lostFrom(p, f)
	}
	return true
}

// lostFrom takes a frame that arrived on a peer without its handles.
func (s *System) lostFrom(p *peer, f *fdipc.Frame) {
	r := &wire.Reader{B: f.Payload}
	target := p.lastTarget(f.Lane).target(r, s.cfg.Address)
	if f.Target != p.incarnation || p.ended.Load() || r.Bad || !s.local(target) {
		s.refused.Add(1)
		return
	}
	switch f.Kind {
	case wire.KindUser:
		var sender *actor.PID
		if f.Flags&wire.FlagSender != 0 {
			sender = r.PID(s.cfg.Address)
		}
		if r.Bad {
			s.countMalformed(p, f.Kind)
			return
		}
		if target.Id == askID {
			s.asks.finish(target.RequestId, nil, fdipc.ErrNoFiles)
			return
		}
		s.undeliverable(target, nil, sender, fdipc.ErrNoFiles)
	case wire.KindLane:
		op, address := r.Byte(), r.Text(wire.MaxAddress)
		incarnation, number := r.Uint(), r.Uint()
		if r.Bad || op != laneGrant || p.address != s.uplinkAddress() {
			s.countMalformed(p, f.Kind)
			return
		}
		s.laneHandleLost(address, incarnation, number)
	default:
		s.countMalformed(p, f.Kind) // no other has handles
	}
}

// handle does what a frame for this process says.
func (s *System) handle(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	if f.Kind != wire.KindUser && f.Kind != wire.KindLane {
		f.Refuse(fdipc.ReasonUnknown) // no other frame has handles
	}
	switch f.Kind {
	case wire.KindUser:
		s.onUser(p, f, r, target)
	case wire.KindStop:
		s.onStop(p, f, r, target)
	case wire.KindMonitor, wire.KindDemonitor:
		s.onMonitor(p, f, r, target)
	case wire.KindDown:
		s.onDown(p, r)
	case wire.KindFailed:
		s.onFailed(p, r, target)
	case wire.KindLane:
		s.onLane(p, f, r)
	case wire.KindProcessEnded:
		s.onProcessEnded(p, r)
	case wire.KindAskEnd:
		s.onAskEnd(p, r)
	case wire.KindNameRequest:
		s.onNameRequest(p, r)
	case wire.KindNameReply:
		s.onNameReply(p, r)
	case wire.KindNameChanged:
		s.onNameChanged(p, r)
	case wire.KindTypes:
		s.onTypes(p, r)
	default:
		s.countMalformed(p, f.Kind) // of a later release
	}
}

// countMalformed counts a frame that can not be read.
func (s *System) countMalformed(p *peer, kind fdipc.Kind) {
	s.malformed.Add(1)
	s.log.Debug("malformed frame", slog.String("from", p.address), slog.Int("kind", int(kind)))
}

func (s *System) onUser(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	var sender *actor.PID
	var header map[string]string
	if f.Flags&wire.FlagSender != 0 {
		sender = r.PID(s.cfg.Address)
	}
	if f.Flags&wire.FlagHeader != 0 {
		header = r.Header()
	}
	if r.Bad {
		s.countMalformed(p, f.Kind)
		f.Refuse(fdipc.ReasonUnknown)
		return
	}
	asked := sender != nil && sender.Id == askID && !s.local(sender)
	if asked {
		if !s.inbound.beginAsk(p, sender) {
			f.Refuse(fdipc.ReasonOverload)
			s.failAsk(sender, ErrTooMany)
			return
		}
		if p.ended.Load() || s.attached(sender.Address) == nil && !s.hasUplink() {
			s.inbound.endAsk(sender) // no process tells this one of its end
		}
	}
	last := p.lastTarget(f.Lane)
	inc := last.actor(s, target)
	if inc == nil && (reserved(target.Id) || len(r.B) > maxDeadLetter && !s.reaches(target)) {
		f.Refuse(fdipc.ReasonUnknown)
		s.undeliverable(target, nil, sender, ErrNoActor)
		return
	}
	msg, err := last.types.Read(r.B)
	if err == nil {
		err = giveHandles(msg, f.Handles)
	}
	if err != nil {
		s.closeHandles(msg)
		s.malformed.Add(1)
		f.Refuse(fdipc.ReasonUnknown)
		if target.Id == askID { // an answer that can not be read
			s.asks.finish(target.RequestId, nil, err)
			return
		}
		s.undeliverable(target, nil, sender, err)
		return
	}
	header = putTrace(header, f.Trace)
	var m any = msg
	if sender != nil || header != nil {
		m = &actor.MessageEnvelope{Header: header, Message: msg, Sender: sender}
	}
	if err := s.deliverSafely(inc, target, m, len(f.Payload)); err != nil {
		s.undeliverable(target, msg, sender, err)
	}
}

// maxDeadLetter is how long a message of another process may be, in bytes, to be decoded for
// its dead letter alone: decoded it may take many times that. A longer one is a dead letter
// without content.
const maxDeadLetter = 64 << 10

// reaches reports whether there is something here that takes messages for target, other
// than an actor of this package.
func (s *System) reaches(target *actor.PID) bool {
	switch target.Id {
	case askID:
		return s.asks.has(target.RequestId)
	case processID:
		return false
	}
	sys := s.protoIfMade()
	if sys == nil {
		return false
	}
	_, ok := sys.ProcessRegistry.GetLocal(target.Id)
	return ok
}

// reserved says whether an id is one of protoactor's own processes. Some of
// them panic at a user message, one publishes it to all.
func reserved(id string) bool {
	return id == "deadletter" || id == "eventstream" || id == foreignWatcherID || strings.HasPrefix(id, "guardian$")
}

// deliverSafely delivers for a peer: whatever it sends, a panic stays here.
func (s *System) deliverSafely(inc *incarnation, target *actor.PID, message any, bytes int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", ErrMalformed, v)
		}
	}()
	if inc != nil {
		return inc.box.postPeer(message, bytes)
	}
	return s.deliverLocal(noContext, target, message)
}

// onStop serves a Stop or Poison; one with a ref waits for the end.
func (s *System) onStop(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	how, watcher, ref := r.Byte(), r.Text(wire.MaxAddress), r.Uint()
	if r.Bad || how > wire.StopPoison || watcher != p.address {
		s.countMalformed(p, f.Kind)
		return
	}
	switch {
	case reserved(target.Id):
		if ref != 0 {
			s.sendDown(watcher, ref, noActor, endNoActor)
		}
	case ref == 0 || target.Id == processID:
		s.stopLocal(target.Id, how, watcher)
	case how == wire.StopNormal:
		s.countMalformed(p, f.Kind)
	default:
		s.serveMonitor(p, target, watcher, ref, how)
	}
}

// onMonitor serves the monitor of another process.
func (s *System) onMonitor(p *peer, f *fdipc.Frame, r *wire.Reader, target *actor.PID) {
	watcher, ref := r.Text(wire.MaxAddress), r.Uint()
	if r.Bad || ref == 0 || watcher != p.address {
		s.countMalformed(p, f.Kind)
		return
	}
	if f.Kind == wire.KindDemonitor {
		if off := s.inbound.takeMonitor(watcher, ref); off != nil {
			off()
		}
		return
	}
	s.serveMonitor(p, target, watcher, ref, wire.StopNormal)
}

func (s *System) serveMonitor(p *peer, target *actor.PID, watcher string, ref uint64, stop byte) {
	k := watchKey{address: watcher, ref: ref}
	off := func() { s.unwatchLocal(target.Id, k) }
	switch err := s.inbound.addMonitor(watcher, ref, off); {
	case errors.Is(err, ErrTooMany):
		s.sendDown(watcher, ref, errorReason(err), endNoActor)
		return
	case err != nil:
		s.countMalformed(p, wire.KindMonitor)
		return
	}
	ok := s.watchLocal(target.Id, k, stop, watcher, func(reason supervisor.Reason, how endCause) {
		if s.inbound.takeMonitor(watcher, ref) != nil {
			s.sendDown(watcher, ref, reason, how)
		}
	})
	switch {
	case !ok && s.inbound.takeMonitor(watcher, ref) != nil:
		s.sendDown(watcher, ref, noActor, endNoActor)
	case ok && !s.inbound.hasMonitor(watcher, ref): // dropped meanwhile, with its process
		off()
	}
}

func (s *System) onDown(p *peer, r *wire.Reader) {
	ref, how, reason := r.Uint(), endCause(r.Byte()), readReason(r)
	if r.Bad || how > endProcess {
		s.countMalformed(p, wire.KindDown)
		return
	}
	if m := s.monitors.get(ref, p.address); m != nil {
		s.monitors.fire(m, reason, how)
	}
}

func (s *System) onFailed(p *peer, r *wire.Reader, target *actor.PID) {
	if target.Id != askID {
		s.countMalformed(p, wire.KindFailed)
		return
	}
	err := readError(r, s.asks.target(target.RequestId))
	if r.Bad {
		s.countMalformed(p, wire.KindFailed)
		return
	}
	s.asks.finish(target.RequestId, nil, err)
}

// onProcessEnded hears from the master that a process has ended.
func (s *System) onProcessEnded(p *peer, r *wire.Reader) {
	address, reason := r.Text(wire.MaxAddress), readReason(r)
	if r.Bad || p.address != s.uplinkAddress() || checkName(address) != nil || address == p.address {
		s.countMalformed(p, wire.KindProcessEnded)
		return
	}
	s.mu.Lock()
	s.endedProcesses.add(address, reason)
	delete(s.brokenLanes, address)
	to := s.peers[address]
	s.mu.Unlock()
	switch {
	case to == nil:
		s.ended(address, reason)
	case to.lane:
		s.laneProcessEnded(to, reason)
	}
	// What was attached here is left to Detach, which comes after its last messages.
}

// hasEnded says whether a process is known to have ended.
func (s *System) hasEnded(address string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.endedProcesses.find(address)
	return ok
}

func (s *System) onAskEnd(p *peer, r *wire.Reader) {
	asker := r.PID("")
	if r.Bad || asker.Address != p.address {
		s.countMalformed(p, wire.KindAskEnd)
		return
	}
	s.inbound.endAsk(asker)
}
