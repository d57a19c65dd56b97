package fdipc

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// The wire, as specified in docs/protocol.md. All numbers are little-endian.
//
// A lane is a sequence of packets, each one message of a SOCK_SEQPACKET socket. A
// packet is one or more pieces. A piece is a whole frame or a part of one:
//
//	 0  u32  n        bytes of payload in this piece
//	 4  u8   kind
//	 5  u8   bits     piece* below
//	 6  u8   flags    the application's
//	 7  u8   handles  entries in this piece, 0..253
//	 8  u64  target
//	16  [26]          trace context, if pieceTrace
//	    entries
//	    payload
//
// An entry describes one descriptor; the descriptors of a packet stand in the order of its entries:
//
//	 0  u32  slot
//	 4  u32  sequence
//	 8  u8   kind of handle, as the sender sees it
//	 9  u8   bits     entry* below
//	10  u8   length of the name
//	11  u8   reserved, 0
//	12  [26]          trace context, if entryTrace
//	                  what was known at accept, if entryAccepted: see Accepted
//	    name
const (
	pieceHead = 16
	entryHead = 12
	traceLen  = len(TraceContext{})

	// maxPacket bounds a packet; a receiver must take that much. sendPacket is where our sender
	// starts a new one, but for pieces of a longer frame, which fill theirs.
	maxPacket  = 64 << 10
	sendPacket = 32 << 10

	// maxFDs is SCM_MAX_FD: what the kernel passes in one message. sendFDs is
	// where our sender starts a new packet if it has the choice.
	maxFDs  = 253
	sendFDs = 64

	maxName = 255
)

// bits of a piece
const (
	pieceTrace = 1 << iota // a trace context follows the head
	pieceMore              // the next piece of this lane continues the frame
	pieceCont              // this piece continues a frame; kind, flags and target repeat those of the first
	pieceData              // the frame belongs to the data lane
	pieceBits  = 1<<iota - 1
)

// bits of an entry
const (
	entryTrace    = 1 << iota // a trace context follows the head
	entryAccepted             // what was known at accept follows
	entryBits     = 1<<iota - 1
)

// kinds of the transport
const (
	kindHello   Kind = 0x01
	kindGoodbye Kind = 0x02
	kindWake    Kind = 0x04 // look at the claim table
	kindPing    Kind = 0x05
	kindPong    Kind = 0x06
)

type pieceHeader struct {
	n       int
	kind    Kind
	bits    uint8
	flags   uint8
	handles int
	target  uint64
}

func putPieceHeader(b []byte, h pieceHeader) {
	_ = b[pieceHead-1]
	binary.LittleEndian.PutUint32(b, uint32(h.n))
	b[4], b[5], b[6], b[7] = byte(h.kind), h.bits, h.flags, byte(h.handles)
	binary.LittleEndian.PutUint64(b[8:], h.target)
}

type handleEntry struct {
	slot, seq uint32
	kind      HandleKind
	trace     TraceContext
	accepted  string // see Accepted
	name      string
}

func (e *handleEntry) size() int {
	n := entryHead + len(e.accepted) + len(e.name)
	if !e.trace.none() {
		n += traceLen
	}
	return n
}

func appendEntry(b []byte, e *handleEntry) []byte {
	bits := byte(0)
	if !e.trace.none() {
		bits = entryTrace
	}
	if e.accepted != "" {
		bits |= entryAccepted
	}
	var head [entryHead]byte
	binary.LittleEndian.PutUint32(head[0:], e.slot)
	binary.LittleEndian.PutUint32(head[4:], e.seq)
	head[8], head[9], head[10] = byte(e.kind), bits, byte(len(e.name))
	b = append(b, head[:]...)
	if bits&entryTrace != 0 {
		b = append(b, e.trace[:]...)
	}
	b = append(b, e.accepted...)
	return append(b, e.name...)
}

// piece is a decoded piece. The byte slices point into the packet.
type piece struct {
	pieceHeader
	trace   []byte // nil or traceLen bytes
	entries []byte
	payload []byte
}

// lane is the lane the piece belongs to.
func (p *piece) lane() Lane {
	if p.bits&pieceData != 0 {
		return Data
	}
	return Control
}

func wireError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// decodePiece takes the first piece off b. It never allocates but for an error.
func decodePiece(b []byte, p *piece) (rest []byte, err error) {
	if len(b) < pieceHead {
		return nil, wireError("piece of %d bytes", len(b))
	}
	p.n = int(binary.LittleEndian.Uint32(b))
	p.kind, p.bits, p.flags, p.handles = Kind(b[4]), b[5], b[6], int(b[7])
	p.target = binary.LittleEndian.Uint64(b[8:])
	b = b[pieceHead:]
	if p.bits&^pieceBits != 0 {
		return nil, wireError("unknown bits %#x", p.bits)
	}
	if p.handles > maxFDs {
		return nil, wireError("%d handles in a piece", p.handles)
	}
	p.trace = nil
	if p.bits&pieceTrace != 0 {
		if len(b) < traceLen || p.bits&pieceCont != 0 {
			return nil, wireError("trace context misplaced")
		}
		p.trace, b = b[:traceLen:traceLen], b[traceLen:]
	}
	n := 0
	for range p.handles {
		if len(b) < n+entryHead {
			return nil, wireError("entry cut off")
		}
		bits, name := b[n+9], int(b[n+10])
		if bits&^entryBits != 0 || b[n+11] != 0 {
			return nil, wireError("unknown bits in an entry")
		}
		n += entryHead
		if bits&entryTrace != 0 {
			n += traceLen
		}
		if bits&entryAccepted != 0 {
			if n >= len(b) {
				return nil, wireError("entry cut off")
			}
			n += 1 + int(b[n])
		}
		n += name
	}
	if len(b) < n {
		return nil, wireError("entry cut off")
	}
	p.entries, b = b[:n:n], b[n:]
	if p.n > len(b) {
		return nil, wireError("payload of %d bytes, %d are there", p.n, len(b))
	}
	p.payload = b[:p.n:p.n]
	return b[p.n:], nil
}

// decodeEntry takes the first entry off b, which decodePiece has checked.
func decodeEntry(b []byte, e *handleEntry) (rest []byte) {
	e.slot, e.seq = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	e.kind = HandleKind(b[8])
	bits, n := b[9], int(b[10])
	b = b[entryHead:]
	e.trace = TraceContext{}
	if bits&entryTrace != 0 {
		b = b[copy(e.trace[:], b):]
	}
	e.accepted = ""
	if bits&entryAccepted != 0 {
		size := 1 + int(b[0])
		e.accepted, b = string(b[:size]), b[size:]
	}
	e.name = ""
	if n > 0 {
		e.name = string(b[:n])
	}
	return b[n:]
}

// features are stated in the handshake. A peer must know all of these, and attach the descriptors
// of the first two; features of later versions are skipped.
type features uint32

const (
	featTable    features = 1 << iota // the sender's claim table, a sealed memfd
	featData                          // a socket of its own for the data lane
	featAccepted                      // entries say what was known at accept
	featAll      = 1<<iota - 1

	featAttached = featTable | featData // have a descriptor
)

func (f features) String() string {
	names := [...]string{"claim table", "data lane", "what was known at accept"}
	var known []string
	for i, name := range names {
		if f&(1<<i) != 0 {
			known = append(known, name)
		}
	}
	return strings.Join(known, ", ")
}

// hello is the payload of kindHello:
//
//	 0  u32  magic "CPIC"
//	 4  u16  lowest version
//	 6  u16  highest version
//	 8  u32  features the sender knows
//	12  u32  features whose descriptors are attached, in the order of the bits
//	16  u32  longest payload it takes
//	20  u32  credits: unclaimed handles it will hold
//	24  …    later versions may add; a receiver ignores what it does not know
type hello struct {
	minVersion, maxVersion uint16
	knows, attached        features
	maxFrame, credits      uint32
}

const (
	helloLen   = 24
	helloMagic = 0x43495043
	version    = 1
)

func (h hello) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, helloMagic)
	b = binary.LittleEndian.AppendUint16(b, h.minVersion)
	b = binary.LittleEndian.AppendUint16(b, h.maxVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(h.knows))
	b = binary.LittleEndian.AppendUint32(b, uint32(h.attached))
	b = binary.LittleEndian.AppendUint32(b, h.maxFrame)
	return binary.LittleEndian.AppendUint32(b, h.credits)
}

func decodeHello(b []byte) (h hello, err error) {
	if len(b) < helloLen || binary.LittleEndian.Uint32(b) != helloMagic {
		return h, wireError("not a hello")
	}
	h.minVersion, h.maxVersion = binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:])
	h.knows, h.attached = features(binary.LittleEndian.Uint32(b[8:])), features(binary.LittleEndian.Uint32(b[12:]))
	h.maxFrame, h.credits = binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])
	if h.minVersion > h.maxVersion {
		return h, wireError("versions %d to %d", h.minVersion, h.maxVersion)
	}
	if h.attached&^h.knows != 0 {
		return h, wireError("features %#x attached, %#x known", uint32(h.attached), uint32(h.knows))
	}
	return h, nil
}
