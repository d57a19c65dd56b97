package actors

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// router is the actor.Process behind every PID that is not of this process,
// and behind every name. A PID that has found it keeps it; it looks the way up for
// each message, so that PIDs kept for long follow a new holder.
type router struct{ s *System }

var _ actor.Process = router{}

// SendUserMessage sends for an actor of this process. It waits for at most SendWait.
func (r router) SendUserMessage(pid *actor.PID, message any) {
	err := r.s.deliver(noContext, pid, message)
	if err != nil {
		_, msg, sender := actor.UnwrapEnvelope(message)
		r.s.undeliverable(pid, msg, sender, err)
	}
}

// SendSystemMessage sends those system messages that have a meaning between
// processes. Supervision has none: a failure belongs to its process.
func (r router) SendSystemMessage(pid *actor.PID, message any) {
	switch m := message.(type) {
	case *actor.Watch:
		r.s.watch(m.Watcher, pid)
	case *actor.Unwatch:
		r.s.unwatch(m.Watcher, pid)
	case *actor.Stop:
		r.s.postStop(pid)
	}
}

// Stop stops for protoactor's ctx.Stop.
func (r router) Stop(pid *actor.PID) { r.SendSystemMessage(pid, &actor.Stop{}) }

// frame returns the header of a frame of this process.
func (s *System) frame(kind fdipc.Kind, lane fdipc.Lane) fdipc.Frame {
	return fdipc.Frame{Kind: kind, Lane: lane, Target: s.cfg.Incarnation}
}

// sendRemote sends a message, bare or in its envelope, to a PID of another process.
func (s *System) sendRemote(ctx context.Context, target *actor.PID, message any) error {
	p, err := s.route(target.Address)
	if err != nil {
		return err
	}
	if err := p.canRead(actor.UnwrapEnvelopeMessage(message)); err != nil {
		return err
	}
	fb := getFrameBuffer()
	defer fb.free()
	if err := s.encode(fb, target, message); err != nil {
		return err
	}
	f := &fb.frame
	sender := actor.UnwrapEnvelopeSender(message)
	ask := sender != nil && sender.Id == askID
	if ask && s.local(sender) {
		s.asks.route(sender.RequestId, target.Address, p)
		f.More = p.asksWaiting.Load() > batchFrom
	}
	if target.Id == askID {
		f.More = s.inbound.endAsk(target) > batchFrom
	}
	if err := p.send(ctx, f); err != nil {
		recoverHandles(f.Handles)
		return err
	}
	if ask && !s.local(sender) {
		s.inbound.endAsk(sender) // passed on: the answer does not come by here
	}
	return nil
}

// batchFrom is how many asks of another process, or to it, must be in flight for one
// more to wait for company on its way: with as many, others are about to be sent too.
const batchFrom = 3

// postMessage sends an answer or a notice that is a user message.
func (s *System) postMessage(target *actor.PID, msg any) {
	p, err := s.route(target.Address)
	if err == nil {
		err = p.canRead(msg)
	}
	if err == nil {
		fb := getFrameBuffer()
		defer fb.free()
		if err = s.encode(fb, target, msg); err == nil {
			p.post(fb.frame, func(b []byte) []byte { return append(b, fb.buf...) })
			return
		}
	}
	s.record(newDeadLetter(target, msg, nil, err))
}

// postTo sends a notice to a PID of another process. more appends what follows
// the target.
func (s *System) postTo(target *actor.PID, kind fdipc.Kind, more func([]byte) []byte) error {
	p, err := s.route(target.Address)
	if err != nil {
		return err
	}
	lane := fdipc.Data
	if kind == wire.KindStop || kind == wire.KindNameRequest {
		lane = fdipc.Control
	}
	p.post(s.frame(kind, lane), func(b []byte) []byte { return more(wire.AppendPID(b, target)) })
	return nil
}

// encode makes the frame of a message.
func (s *System) encode(fb *frameBuffer, target *actor.PID, message any) (err error) {
	h, msg, sender := actor.UnwrapEnvelope(message)
	if err := checkPIDs(target, sender); err != nil {
		return err
	}
	f := &fb.frame
	*f = s.frame(wire.KindUser, fdipc.Data)
	b := wire.AppendPID(fb.buf[:0], target)
	if sender != nil {
		f.Flags |= wire.FlagSender
		b = wire.AppendPID(b, sender)
	}
	if h != nil && h.Length() > 0 { // h may be a non-nil interface of a nil map
		m := h.ToMap()
		f.Trace = takeTrace(m)
		if len(m) > 0 {
			if err := checkHeader(m); err != nil {
				return err
			}
			f.Flags |= wire.FlagHeader
			b = wire.AppendHeader(b, m)
		}
	}
	b, err = fb.types.Append(b, msg)
	fb.buf, f.Payload = b, b
	if err == nil {
		f.Handles, err = takeHandles(msg)
	}
	return err
}

// checkPIDs says no to PIDs that the other end would refuse.
func checkPIDs(pids ...*actor.PID) error {
	for _, pid := range pids {
		if pid != nil && (len(pid.Id) > wire.MaxID || len(pid.Address) > wire.MaxAddress) {
			return fmt.Errorf("%w: PID %.40q of %.40q is longer than %d bytes, or its address than %d", ErrMalformed, pid.Id, pid.Address, wire.MaxID, wire.MaxAddress)
		}
	}
	return nil
}

// checkHeader says no to headers that the other end would refuse.
func checkHeader(h map[string]string) error {
	if len(h) > wire.MaxHeaders {
		return fmt.Errorf("%w: %d headers, at most %d", ErrMalformed, len(h), wire.MaxHeaders)
	}
	for k, v := range h {
		if len(k) > wire.MaxValue || len(v) > wire.MaxValue {
			return fmt.Errorf("%w: header %.40q is longer than %d bytes", ErrMalformed, k, wire.MaxValue)
		}
	}
	return nil
}

// monitorRemote asks the process of target to monitor it. The death of a process
// this one is attached to is heard without asking.
func (s *System) monitorRemote(m *Monitor, target *actor.PID) {
	t := &s.monitors
	// Noted before the way is looked for: if the process ends after that, its end
	// finds the monitor.
	if !t.setTarget(m, target, nil) {
		return
	}
	p, err := s.route(target.Address)
	if err == nil {
		err = checkPIDs(target)
	}
	if err != nil {
		how := endNoActor
		if errors.Is(err, ErrDown) {
			how = endProcess
		}
		t.fire(m, endOf(err), how)
		return
	}
	more := func(b []byte) []byte {
		return binary.AppendUvarint(wire.AppendString(b, s.cfg.Address), m.ref)
	}
	attached := target.Id == processID
	undo := func() { _ = s.postTo(target, wire.KindDemonitor, more) }
	if !attached && !t.setTarget(m, target, undo) {
		return
	}
	switch {
	case m.stop != wire.StopNormal:
		f := s.frame(wire.KindStop, fdipc.Control)
		if m.stop == wire.StopPoison {
			f.Lane = fdipc.Data
		}
		p.post(f, func(b []byte) []byte { return more(append(wire.AppendPID(b, target), m.stop)) })
	case !attached:
		p.post(s.frame(wire.KindMonitor, fdipc.Data), func(b []byte) []byte { return more(wire.AppendPID(b, target)) })
	}
	if !attached && t.hasEnded(m) { // its undo may have gone before
		undo()
	}
	if p.isClosed() { // in between: its monitors have been fired, perhaps without this one
		s.mu.RLock()
		r, ended := s.endedProcesses.find(p.address)
		s.mu.RUnlock()
		if !ended { // a lane that was dropped, see dropLane
			r = p.reasonOfClose()
		}
		if ended || !m.ofProcess || isNoActor(r) {
			t.fire(m, r, endingOf(r))
		}
	}
}

// sendDown tells the system at an address that what its monitor ref watched has ended.
func (s *System) sendDown(address string, ref uint64, r supervisor.Reason, how endCause) {
	_ = s.postTo(ProcessPID(address), wire.KindDown, func(b []byte) []byte { // gone: nobody waits
		b = binary.AppendUvarint(b, ref)
		return appendReason(append(b, byte(how)), r)
	})
}

// frameBuffer is a frame and its payload, which a Conn borrows only until Send returns.
type frameBuffer struct {
	buf   []byte
	frame fdipc.Frame
	types codec.MessageWriter
}

var frameBuffers = sync.Pool{New: func() any { return &frameBuffer{buf: make([]byte, 0, 512)} }}

const keepBuffer = 64 << 10 // larger ones are left to the collector

func getFrameBuffer() *frameBuffer { return frameBuffers.Get().(*frameBuffer) }

func (fb *frameBuffer) free() {
	if cap(fb.buf) <= keepBuffer {
		fb.frame = fdipc.Frame{}
		frameBuffers.Put(fb)
	}
}
