package fdipc

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed: this side has closed the Conn.
	ErrClosed = errors.New("connection closed")
	// ErrPeerLost: the channel ended without a goodbye; the peer has most likely died.
	ErrPeerLost = errors.New("peer lost")
	// ErrProtocol: the peer broke the rules of docs/protocol.md.
	ErrProtocol = errors.New("protocol error")
	// ErrExcess: the peer takes more than its share: of descriptors, of frames that do not become
	// whole, of closes that do not end.
	ErrExcess = errors.New("the peer takes more than its share")
	// ErrVersion: the two sides have no protocol version in common.
	ErrVersion = errors.New("no common protocol version")
	// ErrFeature: the peer does without a feature that this side needs, such as the claim table,
	// which it cannot map. The text names the features.
	ErrFeature = errors.New("the peer lacks a feature of the protocol")
	// ErrHandshake: the peer did not finish the handshake in time.
	ErrHandshake = errors.New("handshake timed out")
	// ErrFull: the lane's queue is full, there are not enough credits, or too many [Calls] wait.
	ErrFull = errors.New("queue full")
	// ErrTooBig: the frame is longer than the limit of one of the two sides.
	ErrTooBig = errors.New("frame too big")
	// ErrTooManyHandles: the frame has more handles than there will ever be credits.
	ErrTooManyHandles = errors.New("too many handles in one frame")
	// ErrKind: the frame's kind belongs to the transport, or its lane does not exist.
	ErrKind = errors.New("kind or lane not usable")
	// ErrRevoked: the sender took the handle back before it was claimed.
	ErrRevoked = errors.New("handle revoked")
	// ErrHandleUsed: the handle was already sent, claimed, refused or closed.
	ErrHandleUsed = errors.New("handle already used")
	// ErrHandleKind: the handle is not of the kind that was asked for.
	ErrHandleKind = errors.New("wrong kind of handle")
	// ErrSuspended: the Conn is suspended, and sends nothing until it is resumed.
	ErrSuspended = errors.New("connection suspended")
	// ErrState: what is to be restored makes no sense, or is of a later format. The text names the
	// field.
	ErrState = errors.New("state of a connection")
	// ErrUnsupported: not possible on this operating system, or for this Conn.
	ErrUnsupported = errors.New("not supported on this system")
	// ErrNoFiles: a process has no room for the descriptors that came: of the handshake, or of a
	// frame.
	ErrNoFiles = errors.New("descriptor table full")
	// ErrInherit: the marker variables of the channel are damaged. The text names the variable.
	ErrInherit = errors.New("inherited channel")
)

// tooBig returns the error of a frame with more bytes than there may be.
func tooBig(size, limit int) error {
	is, most := bytesText(size), bytesText(limit)
	if is == most {
		is, most = fmt.Sprintf("%d bytes", size), fmt.Sprintf("%d", limit)
	}
	return fmt.Errorf("%w: a payload of %s, at most %s", ErrTooBig, is, most)
}

// bytesText returns a number of bytes in its largest unit.
func bytesText(n int) string {
	switch {
	case n >= 10<<20 || n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10 || n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
