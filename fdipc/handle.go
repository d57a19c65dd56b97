package fdipc

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/closer"
)

// HandleKind is what a handle turns out to be.
type HandleKind uint8

const (
	HandleUnknown            HandleKind = iota
	HandleTCP                           // a TCP connection, over IPv4 or IPv6
	HandleTCPListener                   // a listening TCP socket
	HandleUDP                           // a UDP socket
	HandleUnix                          // a Unix stream connection
	HandleUnixListener                  // a listening one
	HandleUnixgram                      // a Unix datagram socket
	HandleUnixPacket                    // a Unix connection of type seqpacket
	HandleUnixPacketListener            // a listening one
	HandlePipe                          // an end of a pipe or FIFO
	HandleFile                          // a regular file or directory
	HandleMemfd
	HandleEventfd
	HandlePidfd
	HandleOther // any other descriptor
	HandleValue // a Go value without a descriptor; it can only move within the process
)

var handleKindNames = [...]string{
	"unknown", "tcp", "tcp listener", "udp", "unix", "unix listener", "unixgram",
	"unixpacket", "unixpacket listener", "pipe", "file", "memfd", "eventfd", "pidfd", "other", "value",
}

func (k HandleKind) String() string {
	if int(k) < len(handleKindNames) {
		return handleKindNames[k]
	}
	return "handle kind " + strconv.Itoa(int(k))
}

// Handle is an open descriptor, or within one process a Go value, on its way. It has one
// owner at a time: its maker, the Conn it was sent on, the Resolved callback it came back
// to, or the Handler that received it. Methods may be called concurrently.
//
// A received handle is on offer: it is used by [Handle.Claim] or one of the conversions, which
// claim; or given back by [Handle.Refuse] or [Handle.Close]. Until one of them is called its
// sender may take it back.
type Handle struct {
	Tag   any          // this process's; never sent
	Trace TraceContext // travels with the handle; zero: none

	state      uint8
	kind       HandleKind
	stated     HandleKind // received: what the sender called it
	reason     uint8      // of the last refusal
	wasSent    bool       // it was sent on
	fd         int32      // -1: none
	mu         sync.Mutex
	v          any // the Go value around fd, if there is one; on offer in memory: contents
	name       *string
	accepted   string // see Accepted, as on the wire; empty: not known
	resolvedAt int64  // when it was claimed or refused last, in Unix nanoseconds; 0: not known

	// of a received handle, also after the claim
	from *Conn
	ref  offerID
}

// contents is what a handle holds, on its way through memory.
type contents struct {
	fd int32
	v  any
}

const (
	handleOwned    uint8 = iota // by whoever holds the pointer
	handleSent                  // by a Conn
	handleReceived              // on offer to whoever holds the pointer
	handleGone                  // converted, closed, refused or lost
)

// HandleOf makes a handle of a net.Conn, net.Listener, net.PacketConn, *os.File or any other
// syscall.Conn, and takes ownership of it: the caller must not use v any more. A value without
// a descriptor can only be sent within the process.
func HandleOf(v any) (*Handle, error) {
	h := &Handle{fd: -1, v: v}
	if fd, ok, err := socketFD(v); ok {
		if err != nil {
			return nil, fmt.Errorf("fdipc: handle: %w", err)
		}
		h.fd = int32(fd)
		h.accepted = acceptedOf(v)
		return h, nil
	}
	switch x := v.(type) {
	case syscall.Conn:
		rc, err := x.SyscallConn()
		if err != nil {
			return nil, fmt.Errorf("fdipc: handle: %w", err)
		}
		if err := rc.Control(func(fd uintptr) { h.fd = int32(fd) }); err != nil {
			return nil, fmt.Errorf("fdipc: handle: %w", err)
		}
		h.accepted = acceptedOf(v)
	case net.Conn, net.Listener, net.PacketConn:
		h.kind = HandleValue
	default:
		return nil, fmt.Errorf("fdipc: handle of %T: %w", v, ErrHandleKind)
	}
	return h, nil
}

// HandleFD makes a handle of a descriptor and takes ownership of it. A socket must be non-blocking.
func HandleFD(fd int) *Handle { return &Handle{fd: int32(fd)} }

// FD returns the number of the descriptor that h owns, which stays h's: it is valid until h is sent,
// converted or closed. It is -1 if h has none, or is on offer or was sent.
func (h *Handle) FD() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state != handleOwned {
		return -1
	}
	return int(h.fd)
}

// Named gives h a name of at most 255 bytes, which travels with it, and returns h.
func (h *Handle) Named(name string) *Handle {
	h.name = nameOf(name[:min(len(name), maxName)])
	return h
}

func nameOf(s string) *string {
	if s == "" {
		return nil
	}
	kept := s // only a name is worth an allocation
	return &kept
}

// Name returns the name that the sender gave the handle, or an empty string.
func (h *Handle) Name() string {
	if h.name == nil {
		return ""
	}
	return *h.name
}

// Reason returns why the handle was last refused.
func (h *Handle) Reason() uint8 { return h.reason }

// ResolvedAt returns when a handle that has a trace context was claimed or refused, by the clock of
// the machine and the word of the process that did; the same on both sides. The sender has it from
// the claim table, for Resolved. It is the zero time if the handle was taken back.
func (h *Handle) ResolvedAt() time.Time {
	if h.resolvedAt == 0 {
		return time.Time{}
	}
	return time.Unix(0, h.resolvedAt)
}

// Kind returns what the descriptor is. It asks the kernel, once; it does not trust the sender.
func (h *Handle) Kind() HandleKind {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kindLocked()
}

// Known notes what the handle is, for an application that knows, and returns h. It saves the three
// system calls of asking the kernel. It does nothing once the kind is known.
func (h *Handle) Known(k HandleKind) *Handle {
	h.mu.Lock()
	if h.kind == HandleUnknown && h.fd >= 0 {
		h.kind = k
	}
	h.mu.Unlock()
	return h
}

func (h *Handle) kindLocked() HandleKind {
	if h.kind == HandleUnknown {
		switch {
		case h.fd >= 0 && h.state != handleGone:
			h.kind = detectKind(int(h.fd))
		case h.state == handleReceived && h.from.memory:
			h.kind = h.stated
		}
	}
	return h.kind
}

// entry describes h to the peer. The slot is not known yet.
func (h *Handle) entry() handleEntry {
	h.mu.Lock()
	defer h.mu.Unlock()
	return handleEntry{kind: h.kind, trace: h.Trace, accepted: h.accepted, name: h.Name()}
}

// take takes h from its owner, for a Conn.
func (h *Handle) take(memory bool) error {
	h.mu.Lock()
	var err error
	switch {
	case h.state != handleOwned:
		err = ErrHandleUsed
	case h.fd < 0 && !memory:
		err = ErrHandleKind
	default:
		if memory {
			h.kindLocked() // the receiver cannot look for itself before it claims
		}
		h.state = handleSent
	}
	h.mu.Unlock()
	return err
}

// resolve gives h back to its owner, or ends it if it was claimed.
func (h *Handle) resolve(o Outcome) {
	h.mu.Lock()
	h.state = handleOwned
	if o == Claimed {
		h.state, h.fd, h.v = handleGone, -1, nil
	}
	h.mu.Unlock()
}

// closeItem returns what is to be closed of h, if there is anything.
func (h *Handle) closeItem() (x closer.Item, ok bool) {
	x.FD, x.TCP = h.fd, h.kind == HandleTCP
	x.V, ok = h.v.(io.Closer)
	return x, ok || h.fd >= 0
}

// holdsPort reports whether h is known to hold a port, which is to be free as soon as h is closed.
// Such a close does not wait. That of a Unix listener may wait: what its clients have sent to it,
// descriptors too, is closed with it.
func (h *Handle) holdsPort() bool {
	return h.kind == HandleTCPListener || h.kind == HandleUDP
}

// disposeLocked closes what this side has of h, without waiting for what is behind it.
func (h *Handle) disposeLocked() {
	x, ok := h.closeItem()
	switch {
	case !ok:
	case h.holdsPort():
		x.Close()
	case h.from != nil:
		h.from.closers.Add(x)
	default:
		closer.Local.Add(x)
	}
	h.fd, h.v = -1, nil
}

// Claim takes a received handle for good: from now on no other process can get it. It returns
// [ErrRevoked] if the sender took it back; the handle is then closed. Claiming twice is once.
func (h *Handle) Claim() error {
	h.mu.Lock()
	err := h.claimLocked()
	h.mu.Unlock()
	if err != nil {
		return fmt.Errorf("fdipc: claim: %w", err)
	}
	return nil
}

func (h *Handle) claimLocked() error {
	switch h.state {
	case handleOwned:
		return nil
	case handleReceived:
	default:
		return ErrHandleUsed
	}
	if !h.from.answer(h, 0, claims.Claimed) {
		h.dropLocked()
		return ErrRevoked
	}
	h.state = handleOwned
	if c, ok := h.v.(contents); ok {
		h.fd, h.v = c.fd, c.v
	}
	return nil
}

// dropLocked closes what this side has of a handle that it does not own. It never
// shuts a connection down: another process may be serving it.
func (h *Handle) dropLocked() {
	h.state = handleGone
	h.v = nil // contents are the sender's
	h.disposeLocked()
}

// Refuse gives a received handle back to its sender. A handle that is no longer on offer is left as
// it is.
func (h *Handle) Refuse(reason uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.state == handleReceived {
		h.from.answer(h, reason, claims.Refused)
		h.dropLocked()
	}
}

// Close ends h: what is owned is closed, what is on offer is refused. It may be called more than
// once; a handle that was sent is left to the Conn. Close does not wait for the descriptor's own
// close, which a file system or another process may hold up. A claimed connection whose kind was
// never asked for ends when its sender has closed its copy too, some milliseconds later.
func (h *Handle) Close() error {
	h.mu.Lock()
	switch h.state {
	case handleReceived:
		h.from.answer(h, ReasonNone, claims.Refused)
		h.dropLocked()
	case handleOwned:
		h.state = handleGone
		if h.senderHasCopy() && connectedFD(int(h.fd)) {
			shutdownFD(int(h.fd))
		}
		h.disposeLocked()
	}
	h.mu.Unlock()
	return nil
}

// senderHasCopy reports whether h is a connection of which the sender still has a copy, so that
// closing ours would not end it. Only a known connection counts: to shut down a listener would
// break it for all that share it.
func (h *Handle) senderHasCopy() bool {
	connection := h.kind == HandleTCP || h.kind == HandleUnix || h.kind == HandleUnixPacket
	return connection && h.fd >= 0 && !h.wasSent && h.place().Held()
}

// place returns h's place in the peer's claim table; none for a handle that was made here.
func (h *Handle) place() claims.Place {
	if h.from == nil {
		return claims.Place{}
	}
	return claims.Place{Table: h.from.peer, Slot: h.ref.slot, Seq: h.ref.seq}
}
