package actors

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/asynkron/protoactor-go/actor"
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
	if f.Kind < firstKind || f.Kind > lastKind {
		return false
	}
	if l := s.attached(from); l != nil && !l.lane {
		return s.handleFrom(l, f)
	}
	s.refused.Add(1)
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

// handleFrom takes a frame that arrived on a link.
func (s *System) handleFrom(l *link, f *fdipc.Frame) bool {
	if f.Kind < firstKind || f.Kind > lastKind {
		return false
	}
	if f.Target != l.incarnation || l.ended.Load() {
		s.refused.Add(1)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	r := &reader{b: f.Payload}
	target := l.last(f.Lane).target(r, s.cfg.Address)
	if r.bad || !s.local(target) { // nobody passes frames on
		s.bad(l, f.Kind)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	s.handle(l, f, r, target)
	return true
}

// HandlesLost takes a frame of a process whose handles did not arrive, for [fdipc.Config].NoFiles of the channel that
// was attached. What waits for it fails with an error that wraps [fdipc.ErrNoFiles]. It is false for a kind that is not
// of this package.
func (s *System) HandlesLost(from string, f *fdipc.Frame) bool {
	if f.Kind < firstKind || f.Kind > lastKind {
		return false
	}
	if l := s.attached(from); l != nil && !l.lane {
		s.lostFrom(l, f)
	}
	return true
}

// lostFrom takes a frame that arrived on a link without its handles.
func (s *System) lostFrom(l *link, f *fdipc.Frame) {
	r := &reader{b: f.Payload}
	target := l.last(f.Lane).target(r, s.cfg.Address)
	if f.Target != l.incarnation || l.ended.Load() || r.bad || !s.local(target) {
		s.refused.Add(1)
		return
	}
	switch f.Kind {
	case kindUser:
		var sender *actor.PID
		if f.Flags&flagSender != 0 {
			sender = r.pid(s.cfg.Address)
		}
		if r.bad {
			s.bad(l, f.Kind)
			return
		}
		if target.Id == askID {
			s.asks.finish(target.RequestId, nil, fdipc.ErrNoFiles)
			return
		}
		s.undeliverable(target, nil, sender, fdipc.ErrNoFiles)
	case kindLane:
		op, address := r.byte(), r.string(maxAddress)
		incarnation, number := r.uint(), r.uint()
		if r.bad || op != laneGrant || l.address != s.uplinkAddress() {
			s.bad(l, f.Kind)
			return
		}
		s.loseLane(address, incarnation, number)
	default:
		s.bad(l, f.Kind) // no other has handles
	}
}

// handle does what a frame for this process says.
func (s *System) handle(l *link, f *fdipc.Frame, r *reader, target *actor.PID) {
	if f.Kind != kindUser && f.Kind != kindLane {
		f.Refuse(fdipc.ReasonUnknown) // no other frame has handles
	}
	switch f.Kind {
	case kindUser:
		s.onUser(l, f, r, target)
	case kindStop:
		s.onStop(l, f, r, target)
	case kindMonitor, kindDemonitor:
		s.onMonitor(l, f, r, target)
	case kindDown:
		s.onDown(l, r)
	case kindFailed:
		s.onFailed(l, r, target)
	case kindLane:
		s.onLane(l, f, r)
	case kindGone:
		s.onGone(l, r)
	case kindAskEnd:
		s.onAskEnd(l, r)
	case kindName:
		s.onName(l, r)
	case kindNamed:
		s.onNamed(l, r)
	case kindMoved:
		s.onMoved(l, r)
	case kindTypes:
		s.onTypes(l, r)
	default:
		s.bad(l, f.Kind) // of a later release
	}
}

// bad counts a frame that can not be read.
func (s *System) bad(l *link, kind fdipc.Kind) {
	s.malformed.Add(1)
	s.log.Debug("malformed frame", slog.String("from", l.address), slog.Int("kind", int(kind)))
}

func (s *System) onUser(l *link, f *fdipc.Frame, r *reader, target *actor.PID) {
	var sender *actor.PID
	var header map[string]string
	if f.Flags&flagSender != 0 {
		sender = r.pid(s.cfg.Address)
	}
	if f.Flags&flagHeader != 0 {
		header = r.header()
	}
	if r.bad {
		s.bad(l, f.Kind)
		f.Refuse(fdipc.ReasonUnknown)
		return
	}
	asked := sender != nil && sender.Id == askID && !s.local(sender)
	if asked {
		if !s.inbound.beginAsk(l, sender) {
			f.Refuse(fdipc.ReasonOverload)
			s.failAsk(sender, ErrTooMany)
			return
		}
		if l.ended.Load() || s.attached(sender.Address) == nil && !s.hasUplink() {
			s.inbound.endAsk(sender) // no process tells this one of its end
		}
	}
	last := l.last(f.Lane)
	c := last.actor(s, target)
	if c == nil && (reserved(target.Id) || len(r.b) > maxDeadLetter && !s.reaches(target)) {
		f.Refuse(fdipc.ReasonUnknown)
		s.undeliverable(target, nil, sender, ErrNoActor)
		return
	}
	msg, err := last.types.read(r.b)
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
	if err := s.deliverSafely(c, target, m, len(f.Payload)); err != nil {
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
	sys := s.made()
	if sys == nil {
		return false
	}
	_, ok := sys.ProcessRegistry.GetLocal(target.Id)
	return ok
}

// reserved says whether an id is one of protoactor's own processes. Some of
// them panic at a user message, one publishes it to all.
func reserved(id string) bool {
	return id == "deadletter" || id == "eventstream" || id == hubID || strings.HasPrefix(id, "guardian$")
}

// deliverSafely delivers for a peer: whatever it sends, a panic stays here.
func (s *System) deliverSafely(c *cell, target *actor.PID, message any, bytes int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: %v", ErrMalformed, v)
		}
	}()
	if c != nil {
		return c.box.postPeer(message, bytes)
	}
	return s.deliverLocal(noContext, target, message)
}

// onStop serves a Stop or Poison; one with a ref waits for the end.
func (s *System) onStop(l *link, f *fdipc.Frame, r *reader, target *actor.PID) {
	how, watcher, ref := r.byte(), r.string(maxAddress), r.uint()
	if r.bad || how > stopPoison || watcher != l.address {
		s.bad(l, f.Kind)
		return
	}
	switch {
	case reserved(target.Id):
		if ref != 0 {
			s.sendDown(watcher, ref, noActor, endNobody)
		}
	case ref == 0 || target.Id == processID:
		s.stopLocal(target.Id, how, watcher)
	case how == stopNormal:
		s.bad(l, f.Kind)
	default:
		s.serveMonitor(l, target, watcher, ref, how)
	}
}

// onMonitor serves the monitor of another process.
func (s *System) onMonitor(l *link, f *fdipc.Frame, r *reader, target *actor.PID) {
	watcher, ref := r.string(maxAddress), r.uint()
	if r.bad || ref == 0 || watcher != l.address {
		s.bad(l, f.Kind)
		return
	}
	if f.Kind == kindDemonitor {
		if off := s.inbound.takeMonitor(watcher, ref); off != nil {
			off()
		}
		return
	}
	s.serveMonitor(l, target, watcher, ref, stopNormal)
}

func (s *System) serveMonitor(l *link, target *actor.PID, watcher string, ref uint64, stop byte) {
	k := watchKey{address: watcher, ref: ref}
	off := func() { s.unwatchLocal(target.Id, k) }
	switch err := s.inbound.addMonitor(watcher, ref, off); {
	case errors.Is(err, ErrTooMany):
		s.sendDown(watcher, ref, errorReason(err), endNobody)
		return
	case err != nil:
		s.bad(l, kindMonitor)
		return
	}
	ok := s.watchLocal(target.Id, k, stop, watcher, func(reason supervisor.Reason, how ending) {
		if s.inbound.takeMonitor(watcher, ref) != nil {
			s.sendDown(watcher, ref, reason, how)
		}
	})
	switch {
	case !ok && s.inbound.takeMonitor(watcher, ref) != nil:
		s.sendDown(watcher, ref, noActor, endNobody)
	case ok && !s.inbound.hasMonitor(watcher, ref): // dropped meanwhile, with its process
		off()
	}
}

func (s *System) onDown(l *link, r *reader) {
	ref, how, reason := r.uint(), ending(r.byte()), r.reason()
	if r.bad || how > endProcess {
		s.bad(l, kindDown)
		return
	}
	if m := s.monitors.get(ref, l.address); m != nil {
		s.monitors.fire(m, reason, how)
	}
}

func (s *System) onFailed(l *link, r *reader, target *actor.PID) {
	if target.Id != askID {
		s.bad(l, kindFailed)
		return
	}
	err := r.error(s.asks.target(target.RequestId))
	if r.bad {
		s.bad(l, kindFailed)
		return
	}
	s.asks.finish(target.RequestId, nil, err)
}

// onGone hears from the master that a process has ended.
func (s *System) onGone(l *link, r *reader) {
	address, reason := r.string(maxAddress), r.reason()
	if r.bad || l.address != s.uplinkAddress() || checkName(address) != nil || address == l.address {
		s.bad(l, kindGone)
		return
	}
	s.mu.Lock()
	s.gone.add(address, reason)
	delete(s.broken, address)
	to := s.links[address]
	s.mu.Unlock()
	switch {
	case to == nil:
		s.ended(address, reason)
	case to.lane:
		s.laneGone(to, reason)
	}
	// What was attached here is left to Detach, which comes after its last messages.
}

// isGone says whether a process is known to have ended.
func (s *System) isGone(address string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.gone.find(address)
	return ok
}

func (s *System) onAskEnd(l *link, r *reader) {
	asker := r.pid("")
	if r.bad || asker.Address != l.address {
		s.bad(l, kindAskEnd)
		return
	}
	s.inbound.endAsk(asker)
}
