package actors

import (
	"encoding/binary"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// Frames between two systems. Integers are unsigned varints, strings a varint
// length and that many bytes. A pid is address, id, request. An empty address
// means the process that reads the frame. Every payload begins with the pid of
// the target, an actor of the process that reads it; nobody passes frames on. The
// frame's Target field holds the incarnation of the process that wrote it.
//
//	kind       lane     payload after the target
//	user       data     [sender pid] [header count, key, value...] codec, type name, body
//	stop       control  how, watcher's address, ref          target: who is to end
//	           data     the same, when how is stopPoison
//	monitor    data     watcher's address, ref               target: who is watched
//	demonitor  data     watcher's address, ref               target: who is watched
//	down       data     ref, how, reason                     target: the watcher's process
//	failed     data     error                                target: the ask
//	lane       control  op, address ... (lanes.go)           between master and child
//	ended      control  address, reason                      from the master: a process has ended
//	askEnd     data     the ask's pid                        target: the process that was asked
//	name       control  op, ref, name, pid                   child to master
//	named      control  ref, what, error, pid or members     the answer
//	changed    control  seq, name                            from the master, "" is all names; the answer has no name
//	types      data     count, name and field names of each  what the writer can read (compat.go)
//
// A stop with a ref other than 0 is a monitor too, of the incarnation it stops.
//
// Order: data frames are signals, in the order in which they were sent, as
// between two Erlang processes. A stop overtakes, as protoactor's does.
const (
	kindUser fdipc.Kind = 0x30 + iota
	kindStop
	kindMonitor
	kindDemonitor
	kindDown
	kindFailed
	kindLane
	kindProcessEnded
	kindAskEnd
	kindNameRequest
	kindNameReply
	kindNameChanged
	kindTypes

	firstKind fdipc.Kind = 0x30
	lastKind  fdipc.Kind = 0x3f
)

// Flags of a frame.
const (
	flagSender uint8 = 1 << 0
	flagHeader uint8 = 1 << 1
)

const (
	stopNormal   byte = 0 // protoactor's Stop
	stopShutdown byte = 1 // System.Stop
	stopPoison   byte = 2 // System.Poison
)

// Limits of what is read from a peer, in bytes or entries.
const (
	maxAddress = 255
	maxID      = 4096
	maxText    = supervisor.MaxText
	maxType    = 512
	maxHeaders = 1024
	maxValue   = 64 << 10
)

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendPID(b []byte, pid *actor.PID) []byte {
	b = appendString(b, pid.Address)
	b = appendString(b, pid.Id)
	return binary.AppendUvarint(b, uint64(pid.RequestId))
}

// reader decodes a payload. After the first mistake it returns zero values and
// bad stays true; it never panics and allocates no more than it was given bytes.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) uint32() uint32 {
	v := r.uint()
	if v > 1<<32-1 {
		r.fail()
		return 0
	}
	return uint32(v)
}

// bytes returns a length-prefixed field, borrowed from the payload.
func (r *reader) bytes(limit int) []byte {
	n := r.uint()
	if n > uint64(limit) || n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) string(limit int) string { return string(r.bytes(limit)) }

// pid reads a pid. The address here stands for an empty one.
func (r *reader) pid(here string) *actor.PID {
	address := r.bytes(maxAddress)
	pid := &actor.PID{Id: r.string(maxID), RequestId: r.uint32()}
	if len(address) == 0 || string(address) == here {
		pid.Address = here // no allocation for the most common address
	} else {
		pid.Address = string(address)
	}
	return pid
}

// header reads the headers of a message; nil when there are none.
func (r *reader) header() map[string]string {
	n := r.uint()
	if n > maxHeaders {
		r.fail()
		return nil
	}
	h := make(map[string]string, n)
	for ; n > 0 && !r.bad; n-- {
		k := r.string(maxValue)
		h[k] = r.string(maxValue)
	}
	return h
}

func appendHeader(b []byte, h map[string]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(h)))
	for k, v := range h {
		b = appendString(appendString(b, k), v)
	}
	return b
}
