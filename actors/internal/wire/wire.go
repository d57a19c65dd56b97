// Package wire has the frames between two actor systems: their kinds, their limits, and the parts
// that their payloads are made of.
//
// Integers are unsigned varints, strings a varint length and that many bytes. A pid is address, id,
// request; an empty address stands for the process that reads the frame. Every payload begins with
// the pid of the target, an actor of the process that reads it; no process passes frames on. The
// frame's Target field holds the incarnation of the process that wrote it.
package wire

import (
	"encoding/binary"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// The kinds of frames.
//
//	kind       lane     payload after the target
//	user       data     [sender pid] [header count, key, value...] codec, type name, body
//	stop       control  how, watcher's address, ref          target: the actor or process to stop
//	           data     the same, when how is StopPoison
//	monitor    data     watcher's address, ref               target: the actor to watch
//	demonitor  data     watcher's address, ref               target: the watched actor
//	down       data     ref, how, reason                     target: the watcher's process
//	failed     data     error                                target: the ask
//	lane       control  op, address ... (actors/lanes.go)    between master and child, or gateway (actors/foreignlanes.go)
//	ended      control  address, reason                      from the master: a process has ended; from the gateway, of another host
//	askEnd     data     the ask's pid                        target: the process that was asked
//	name       control  op, ref, name, pid                   child to master, or master to that of another host
//	named      control  ref, what, error, pid or members     the answer
//	changed    control  seq, name                            from the master, "" is all names; the answer of a child: none
//	types      data     count, name and field names of each  what the writer can read (internal/codec)
//
// A stop with a ref other than 0 is a monitor too, of the incarnation that it stops.
//
// Data frames are signals and arrive in the order in which they were sent, as between two Erlang
// processes. A stop overtakes them, as protoactor's does.
const (
	KindUser fdipc.Kind = 0x30 + iota
	KindStop
	KindMonitor
	KindDemonitor
	KindDown
	KindFailed
	KindLane
	KindProcessEnded
	KindAskEnd
	KindNameRequest
	KindNameReply
	KindNameChanged
	KindTypes

	FirstKind fdipc.Kind = 0x30
	LastKind  fdipc.Kind = 0x3f
)

// Flags of a frame.
const (
	FlagSender uint8 = 1 << 0
	FlagHeader uint8 = 1 << 1
)

// How a stop frame asks an actor to end.
const (
	StopNormal   byte = 0 // protoactor's Stop
	StopShutdown byte = 1 // System.Stop
	StopPoison   byte = 2 // System.Poison
)

// Limits of what is read from a peer, in bytes or entries.
const (
	MaxAddress = 255
	MaxID      = 4096
	MaxText    = supervisor.MaxText
	MaxType    = 512
	MaxHeaders = 1024
	MaxValue   = 64 << 10
)

// AppendString appends a string.
func AppendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// AppendPID appends a pid.
func AppendPID(b []byte, pid *actor.PID) []byte {
	b = AppendString(b, pid.Address)
	b = AppendString(b, pid.Id)
	return binary.AppendUvarint(b, uint64(pid.RequestId))
}

// Reader decodes a payload. After the first mistake it returns zero values and bad stays true; it
// never panics and allocates no more than it was given bytes.
type Reader struct {
	B   []byte
	Bad bool
}

// Fail makes the rest unreadable: Bad is true from now on.
func (r *Reader) Fail() { r.B, r.Bad = nil, true }

// Byte reads a byte.
func (r *Reader) Byte() byte {
	if len(r.B) == 0 {
		r.Fail()
		return 0
	}
	c := r.B[0]
	r.B = r.B[1:]
	return c
}

// Uint reads an unsigned varint.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.B)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.B = r.B[n:]
	return v
}

// Int reads a signed varint.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.B)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.B = r.B[n:]
	return v
}

// Uint32 reads an unsigned varint below 2^32.
func (r *Reader) Uint32() uint32 {
	v := r.Uint()
	if v > 1<<32-1 {
		r.Fail()
		return 0
	}
	return uint32(v)
}

// Bytes returns a length-prefixed field, borrowed from the payload.
func (r *Reader) Bytes(limit int) []byte {
	n := r.Uint()
	if n > uint64(limit) || n > uint64(len(r.B)) {
		r.Fail()
		return nil
	}
	v := r.B[:n]
	r.B = r.B[n:]
	return v
}

// Text reads a string of at most limit bytes.
func (r *Reader) Text(limit int) string { return string(r.Bytes(limit)) }

// PID reads a pid. The address here stands for an empty one. known are strings that it is likely
// to have, beside that one: those are not allocated again.
func (r *Reader) PID(here string, known ...string) *actor.PID {
	pid := new(actor.PID)
	r.ReadPID(pid, here, known...)
	return pid
}

// ReadPID is PID into one that is there.
func (r *Reader) ReadPID(pid *actor.PID, here string, known ...string) {
	address := r.Bytes(MaxAddress)
	if pid.Address = here; len(address) > 0 {
		pid.Address = text(address, here, known)
	}
	pid.Id, pid.RequestId = text(r.Bytes(MaxID), here, known), r.Uint32()
}

func text(b []byte, here string, known []string) string {
	if string(b) == here {
		return here
	}
	for _, s := range known {
		if string(b) == s {
			return s
		}
	}
	return string(b)
}

// Header reads the headers of a message; nil when there are none.
func (r *Reader) Header() map[string]string {
	n := r.Uint()
	if n > MaxHeaders {
		r.Fail()
		return nil
	}
	h := make(map[string]string, n)
	for ; n > 0 && !r.Bad; n-- {
		k := r.Text(MaxValue)
		h[k] = r.Text(MaxValue)
	}
	return h
}

// AppendHeader appends the headers of a message.
func AppendHeader(b []byte, h map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(h)))
	for k, v := range h {
		b = AppendString(AppendString(b, k), v)
	}
	return b
}
