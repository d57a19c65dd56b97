package fdipc

import (
	"encoding/binary"
	"strconv"
)

// Kind says what a frame is. Kinds below [FirstUserKind] belong to the
// transport; Send refuses them. All others mean what the two sides agreed on.
type Kind uint8

// FirstUserKind is the lowest kind an application may send.
const FirstUserKind Kind = 0x10

// Lane is the queue and the socket a frame travels on. Frames of one lane
// arrive in the order in which they were sent; between lanes there is no order.
type Lane uint8

const (
	// Control is for small frames that must not wait behind bulk.
	Control Lane = iota
	// Data is for everything else.
	Data

	lanes = 2
)

// limit returns the bound of a frame's payload in bytes, of which most is what the sides allow.
func (l Lane) limit(most int) int {
	if l == Control {
		return min(most, maxControl)
	}
	return most
}

func (l Lane) String() string {
	switch l {
	case Control:
		return "control"
	case Data:
		return "data"
	}
	return "lane " + strconv.Itoa(int(l))
}

// TraceContext is opaque to this package. The zero value means none and takes no room on the wire.
type TraceContext [26]byte

// none reports whether there is no context. Most frames have none, and a comparison of 26 bytes is
// a call.
func (t *TraceContext) none() bool {
	le := binary.LittleEndian
	return le.Uint64(t[0:])|le.Uint64(t[8:])|le.Uint64(t[16:])|le.Uint64(t[18:]) == 0
}

// Frame is one message.
type Frame struct {
	Kind  Kind
	Lane  Lane
	Flags uint8 // the application's

	// Target is the application's: a listener, an actor, a request number.
	Target uint64

	// More means that other goroutines, which can run now, will send on this lane too:
	// the frame waits for them and shares their system call. The flag is not sent. Without
	// others it costs a switch of goroutines.
	More bool

	Trace TraceContext

	// Payload is borrowed: from the sender until Send returns, by the receiver
	// until its Handler returns.
	Payload []byte

	// Handles. A sender gives up each of them when Send returns nil, and keeps
	// all of them when Send returns an error. A receiver borrows the slice until
	// its Handler returns and owns the handles in it: it must claim or refuse each.
	// A frame arrives with all its handles or not at all.
	Handles []*Handle
}

// Refuse refuses every handle of f with the given reason. It is for a Handler that
// has no use for the frame.
func (f *Frame) Refuse(reason uint8) {
	for _, h := range f.Handles {
		h.Refuse(reason)
	}
}

// Outcome says how the offer of a handle ended.
type Outcome uint8

const (
	// Claimed: the receiver has it, the sender's copy is closed.
	Claimed Outcome = iota
	// Refused: the receiver does not want it or could not take it. The handle
	// belongs to the sender again; see [Handle.Reason].
	Refused
	// Returned: it was not claimed before its deadline, or the peer is gone. The
	// handle belongs to the sender again.
	Returned
)

func (o Outcome) String() string {
	switch o {
	case Claimed:
		return "claimed"
	case Refused:
		return "refused"
	case Returned:
		return "returned"
	}
	return "outcome " + strconv.Itoa(int(o))
}

// Reasons of a refusal. Values from 16 on are the application's.
const (
	ReasonNone     uint8 = 0 // not said
	ReasonNoFiles  uint8 = 1 // the receiver's descriptor table was full (MSG_CTRUNC)
	ReasonOverload uint8 = 2 // the receiver holds too many unclaimed handles
	ReasonUnknown  uint8 = 3 // the receiver does not handle this kind of frame
	ReasonClosed   uint8 = 4 // the receiver is closing
)
