package wire

import (
	"encoding/binary"

	"github.com/coppice-go/coppice/fdipc"
)

// The kinds of frame that belong to this package, 0x40 to 0x4f and 0x60 to 0x6f. W is a worker,
// M the master, L the listener process. Target is the listener's number, but in
// Listen, Reply, Share, Stats and GiveUp that of the request. Payloads of control frames
// are JSON: control traffic is rare, and clarity wins. The frames that travel
// with connections carry fixed little-endian integers or nothing.
const (
	KindListen   fdipc.Kind = 0x40 // W→M  open or share a socket. Payload: Request
	KindReply    fdipc.Kind = 0x41 // M→W  the answer. Payload: reply. Handle: the socket, if the worker is to accept itself
	KindShare    fdipc.Kind = 0x42 // W→M  a listening socket that the worker opened. Payload: Request. Handle: the socket
	KindClosed   fdipc.Kind = 0x43 // W→M  the worker closed its listener
	KindOpen     fdipc.Kind = 0x44 // M→L  accept on this socket. Payload: opening. Handle: the socket
	KindPause    fdipc.Kind = 0x45 // M→L  accept no more for now
	KindResume   fdipc.Kind = 0x46 // M→L  accept again
	KindShut     fdipc.Kind = 0x47 // M→L  drain the backlog, close the socket. M→W  the listener is closed
	KindShutAck  fdipc.Kind = 0x48 // L→M  the socket is closed here: its port is free
	KindBroken   fdipc.Kind = 0x49 // L→M  accept fails for good: somebody shut the socket down. Payload: the error's text; none says that the socket did not arrive, for want of descriptors
	KindStats    fdipc.Kind = 0x4a // M→L  asks for counts; L→M answers. Target: the request. Payload: []ListenerStats
	KindJoin     fdipc.Kind = 0x4b // W→L  offer me this listener's connections. Payload: 8 bytes, connections open already. L→W answers: it is in the rotation
	KindLeave    fdipc.Kind = 0x4c // W→L  offer me no more
	KindOffer    fdipc.Kind = 0x4d // L→W  connections. Handles: the connections, each with its trace context. Payload: 8 bytes for each, when it was accepted (CLOCK_MONOTONIC, ns)
	KindDone     fdipc.Kind = 0x4e // W→L  connections ended. Payload: 8 bytes, how many since Join. Not sent after L→W Counters
	KindGiveUp   fdipc.Kind = 0x4f // W→M  a request is no longer wanted; its reply, if it was sent, is not heeded
	KindLoad     fdipc.Kind = 0x60 // W→L  its own word on its load, for LeastLoaded. Payload: 8 bytes
	KindCounters fdipc.Kind = 0x61 // W→L  what it counts itself for the listener of Target. Handle: a memfd, see sharedCounters. L→W: that says enough, spare the Done frames
)

// Reasons of a refusal, as given to fdipc's Handle.Refuse. Those below 16 are
// the transport's.
const (
	ReasonClosed uint8 = 16 + iota // the worker has closed that listener, or never had it
	ReasonFull                     // the worker's queue is full
)

// maxControl bounds the payload of a control frame that is decoded, in bytes.
const MaxControl = 64 << 10

// Count is the payload of Join and Done.
func Count(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// ParseCount reads the payload of Join and Done; a wrong length is not ok.
func ParseCount(b []byte) (n uint64, ok bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b), true
}
