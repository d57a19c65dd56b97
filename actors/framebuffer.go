package actors

import (
	"fmt"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// frameBuffer is a frame and its payload, which a Conn borrows only until Send returns.
type frameBuffer struct {
	buf   []byte
	frame fdipc.Frame
	types codec.MessageWriter
}

var frameBuffers = sync.Pool{New: func() any { return &frameBuffer{buf: make([]byte, 0, 512)} }}

const keepBuffer = 256 << 10 // larger ones are left to the collector

func getFrameBuffer() *frameBuffer { return frameBuffers.Get().(*frameBuffer) }

func (fb *frameBuffer) free() {
	if cap(fb.buf) <= keepBuffer {
		fb.frame.Payload, fb.frame.Handles = nil, nil
		frameBuffers.Put(fb)
	}
}

// unwrap takes a message out of its envelope, if it is in one. The header is a copy.
func unwrap(message any) (header map[string]string, msg any, sender *actor.PID) {
	h, msg, sender := actor.UnwrapEnvelope(message)
	if h != nil && h.Length() > 0 { // h may be a non-nil interface of a nil map
		header = h.ToMap()
	}
	return header, msg, sender
}

// encode makes the frame of a message. It changes m, its header.
func (lp *localProcess) encode(fb *frameBuffer, target *actor.PID, m map[string]string, msg any, sender *actor.PID) (err error) {
	if err := checkPIDs(target, sender); err != nil {
		return err
	}
	f := &fb.frame
	*f = lp.frame(wire.KindUser, fdipc.Data)
	b := wire.AppendPID(fb.buf[:0], target)
	if sender != nil {
		f.Flags |= wire.FlagSender
		b = wire.AppendPID(b, sender)
	}
	if m != nil {
		f.Trace = takeTrace(m)
	}
	if mark := lp.mark.Load(); mark != nil && m[mark[0]] == "" {
		if m == nil {
			m = make(map[string]string, 1)
		}
		m[mark[0]] = mark[1]
	}
	if len(m) > 0 {
		if err := checkHeader(m); err != nil {
			return err
		}
		f.Flags |= wire.FlagHeader
		b = wire.AppendHeader(b, m)
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
