package actors

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
)

// relay passes a frame on to the process of its target, in the master. It does
// not wait: a full channel is ErrBusy to the sender. It returns the target when that
// turns out to be here, behind a name; else nil, and the frame is dealt with.
func (s *System) relay(from *link, f *fdipc.Frame, r *reader, target *actor.PID) *actor.PID {
	if !speaksForItself(from, f, *r) {
		s.bad(from, f.Kind)
		f.Refuse(fdipc.ReasonUnknown)
		return nil
	}
	named := target.Address == nameAddress
	if named {
		holder := s.names.whereis(target.Id)
		if holder == nil {
			s.reject(from, f, r, target, ErrNoActor)
			return nil
		}
		if s.local(holder) {
			return holder
		}
		target = holder
	}
	s.mu.RLock()
	to := s.links[target.Address]
	reason, gone := s.gone.find(target.Address)
	s.mu.RUnlock()
	switch {
	case to == nil && gone:
		s.reject(from, f, r, target, &DownError{PID: ProcessPID(target.Address), Reason: reason})
		return nil
	case to == nil:
		s.reject(from, f, r, target, ErrNoActor)
		return nil
	case target.Id == processID && f.Kind == kindMonitor, target.Id == processID && f.Kind == kindDemonitor:
		// The death of a process is announced to all; who asks needs only to know which.
		if f.Kind == kindMonitor {
			s.bound(from, f.Kind, f.Flags, *r, target.Address)
		}
		return nil
	}
	if named {
		// Before the frame leaves: when the holder ends, the announcement comes after this.
		s.bound(from, f.Kind, f.Flags, *r, target.Address)
	}
	out := *f
	out.Target = s.cfg.Incarnation
	out.Flags |= flagRelayed
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = append(appendPID((*buf)[:0], target), r.b...)
	if f.Kind != kindUser && len(f.Handles) == 0 {
		s.relayed.Add(1)
		to.post(out, func(b []byte) []byte { return append(b, *buf...) })
		return nil
	}
	out.Payload = *buf
	err := claim(f.Handles) // a handle can be sent on by its owner only
	if err == nil {
		err = to.try(&out)
	}
	if err != nil {
		recoverHandles(f.Handles)
		s.reject(from, f, r, target, err)
		return nil
	}
	s.relayed.Add(1)
	return nil
}

func claim(handles []*fdipc.Handle) error {
	for _, h := range handles {
		if err := h.Claim(); err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	return nil
}

// speaksForItself says no to a child that monitors, or reports an end, in the
// name of another. What the master relays is trusted for that.
func speaksForItself(from *link, f *fdipc.Frame, r reader) bool {
	switch f.Kind {
	case kindStop:
		r.byte()
	case kindMonitor, kindDemonitor, kindDown:
	case kindAskEnd:
		return r.pid("").Address == from.address
	default:
		return true
	}
	return string(r.bytes(maxAddress)) == from.address
}

// bound tells who sent to a name, or monitors a process, which process it is.
func (s *System) bound(from *link, kind fdipc.Kind, flags uint8, r reader, address string) {
	var what byte
	var ref uint64
	switch {
	case kind == kindUser && flags&flagSender != 0:
		sender := r.pid("")
		if r.bad || sender.Id != askID || sender.Address != from.address {
			return
		}
		what, ref = boundAsk, uint64(sender.RequestId)
	case kind == kindMonitor, kind == kindStop:
		if kind == kindStop {
			r.byte()
		}
		r.bytes(maxAddress)
		what, ref = boundMonitor, r.uint()
	default:
		return
	}
	if r.bad {
		return
	}
	from.post(s.frame(kindBound, fdipc.Data), func(b []byte) []byte {
		b = appendPID(b, ProcessPID(from.address))
		return appendString(binary.AppendUvarint(append(b, what), ref), address)
	})
}

// reject answers a frame that can not be passed on.
func (s *System) reject(from *link, f *fdipc.Frame, r *reader, target *actor.PID, err error) {
	f.Refuse(fdipc.ReasonUnknown)
	switch f.Kind {
	case kindUser:
		var sender *actor.PID
		if f.Flags&flagSender != 0 {
			sender = r.pid("")
		}
		if r.bad {
			s.bad(from, f.Kind)
			return
		}
		s.undeliverable(target, nil, sender, err)
	case kindMonitor, kindStop:
		if f.Kind == kindStop {
			r.byte()
		}
		watcher, ref := r.string(maxAddress), r.uint()
		if r.bad || watcher != from.address {
			s.bad(from, f.Kind)
			return
		}
		if ref == 0 {
			return
		}
		reason, how := noActor, endNobody
		var down *DownError
		if errors.As(err, &down) {
			reason, how = down.Reason, endProcess
		}
		s.sendDown(watcher, ref, reason, how)
	}
}
