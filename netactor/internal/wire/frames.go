package wire

import (
	"encoding/binary"

	"github.com/coppice-go/coppice/fdipc"
)

// The kinds of frame of this package, 0x40 to 0x4f and 0x60 to 0x6f. W is a worker, M the master, L
// the listener process. Target is the listener's number, but the request's number in Listen, Reply,
// Share, Stats and GiveUp. Payloads of control frames are JSON: control traffic is rare, and
// clarity matters more. The frames that travel with connections carry fixed little-endian integers
// or nothing.
const (
	KindListen   fdipc.Kind = 0x40 // W→M  open or share a socket. Payload: Request
	KindReply    fdipc.Kind = 0x41 // M→W  the answer. Payload: ListenReply. Handle: the socket, if the worker accepts for itself
	KindShare    fdipc.Kind = 0x42 // W→M  a listening socket that the worker opened. Payload: Request. Handle: the socket
	KindClosed   fdipc.Kind = 0x43 // W→M  the worker closed its listener
	KindOpen     fdipc.Kind = 0x44 // M→L  accept on this socket. Payload: Opening. Handle: the socket
	KindPause    fdipc.Kind = 0x45 // M→L, M→W  accept no more for now. Payload: PauseRefuses, or nothing
	KindResume   fdipc.Kind = 0x46 // M→L, M→W  accept again
	KindShut     fdipc.Kind = 0x47 // M→L  drain the backlog, close the socket. M→W  the listener is closed
	KindShutAck  fdipc.Kind = 0x48 // L→M  the socket is closed here: its port is free
	KindBroken   fdipc.Kind = 0x49 // L→M  accept fails for good: a process shut the socket down. Payload: the error's text; empty if the socket did not arrive for want of descriptors
	KindStats    fdipc.Kind = 0x4a // M→L  asks for counts. L→M  the answer. Target: the request. Payload: []ListenerStats
	KindJoin     fdipc.Kind = 0x4b // W→L  offer me this listener's connections. Payload: 8 bytes, connections open already. L→W  the answer: the worker is in the rotation
	KindLeave    fdipc.Kind = 0x4c // W→L  offer me no more
	KindOffer    fdipc.Kind = 0x4d // L→W  connections. Handles: the connections, each with its trace context. Payload: 8 bytes for each, when it was accepted (CLOCK_MONOTONIC, ns); negated if it was parked before: other processes may have copies. After these perhaps for each its poison key, after a byte with its length
	KindDone     fdipc.Kind = 0x4e // W→L  connections ended. Payload: 8 bytes, how many since Join. Not sent after L→W Counters
	KindGiveUp   fdipc.Kind = 0x4f // W→M  a request is no longer wanted; the worker ignores its reply
	KindLoad     fdipc.Kind = 0x60 // W→L  the worker's load, for LeastLoaded. Payload: 8 bytes
	KindCounters fdipc.Kind = 0x61 // W→L  the worker's page of counters for the listener. Handle: a memfd, see shm.SharedCounters. L→W  the page is enough, send no Done frames
	KindPark     fdipc.Kind = 0x62 // W→L  connections between two requests, to be parked. Handles: the connections. Payload: 8 bytes for each, when it has been idle for too long (CLOCK_MONOTONIC, ns); 0 is never. L→W  the same: pass them on to the listener process that has taken my place
)

// Reasons of a refusal, for Handle.Refuse of fdipc. Reasons below 16 are those of fdipc.
const (
	ReasonClosed  uint8 = 16 + iota // the worker has closed that listener, or never had it
	ReasonFull                      // the worker's queue is full
	ReasonRetired                   // of connections to be parked: another listener process takes over, and soon has a link to the worker
	ReasonNotOpen                   // likewise: the listener is not open here, or not yet
)

// ConnKind returns the kind of the connections of a listener's network.
func ConnKind(network string) fdipc.HandleKind {
	switch network {
	case "unix":
		return fdipc.HandleUnix
	case "unixpacket":
		return fdipc.HandleUnixPacket
	}
	return fdipc.HandleTCP
}

// PauseRefuses is the payload of a Pause until whose end clients are refused. Without it they wait
// in the backlog.
const PauseRefuses = 1

// MaxControl bounds the payload of a control frame that is decoded, in bytes.
const MaxControl = 64 << 10

// Count returns the payload of Join, Done and Load.
func Count(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

// ParseCount reads the payload of Join, Done and Load; ok is false if its length is wrong.
func ParseCount(b []byte) (n uint64, ok bool) {
	if len(b) != 8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(b), true
}
