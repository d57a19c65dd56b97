package trunk

import (
	"encoding/binary"
	"fmt"

	"github.com/coppice-go/coppice/fdipc"
)

// The bytes of a trunk; docs/protocol.md has the picture. A trunk frame is a header and a body:
//
//	0  4  n, bytes of the body
//	4  1  type
//	5  1  bits
//	6  2  reserved, 0
//	8  4  lane, 0 where the frame is the trunk's
const headerSize = 12

type frameType uint8

const (
	typeHello  frameType = 1 // who I am; the first of each side
	typeGo     frameType = 2 // this connection is the trunk; from the lower boot
	typeGoaway frameType = 3 // this connection ends, and why
	typeBeat   frameType = 4 // are you there; with bitAnswer: I am
	typeOpen   frameType = 5 // a new lane
	typeOpened frameType = 6 // it is accepted
	typeData   frameType = 7 // a frame of the lane, or a piece of one
	typeCredit frameType = 8 // so many bytes more
	typeEnd    frameType = 9 // the lane has ended, and why
)

// Bits of a header. Those of data are the ones of a piece in fdipc, where both have them.
const (
	bitTrace     = 0x01 // data: a trace context follows
	bitMore      = 0x02 // data: the next piece of the flow continues the frame
	bitContinues = 0x04 // data
	bitData      = 0x08 // data, credit: of the data flow; else of control
	bitCut       = 0x10 // data: the frame is given up, and what came of it is not a frame
	bitAnswer    = 0x01 // beat
	bitStream    = 0x01 // open: a stream of bytes
)

const (
	maxPiece = 32 << 10 // payload of one piece
	maxText  = 4 << 10  // what a gateway says when it opens, accepts or ends
	maxHello = 1 << 10

	pieceHead = 10                                   // kind, flags, target
	maxBody   = pieceHead + traceSize + 4 + maxPiece // of any trunk frame
	traceSize = len(fdipc.TraceContext{})            // 26
	overhead  = 64                                   // what a piece costs besides its payload, in credit

	maxFrame        = 64 << 20 // payload of a frame on the data flow
	maxControlFrame = 4 << 20
)

// limits are the longest body and the bits of each type.
var limits = [...]struct {
	body int
	bits uint8
	lane bool
}{
	typeHello:  {maxHello, 0, false},
	typeGo:     {8, 0, false},
	typeGoaway: {1 + maxText, 0, false},
	typeBeat:   {8, bitAnswer, false},
	typeOpen:   {maxText, bitStream, true},
	typeOpened: {maxText, 0, true},
	typeData:   {maxBody, bitTrace | bitMore | bitContinues | bitData | bitCut, true},
	typeCredit: {4, bitData, true},
	typeEnd:    {1 + maxText, 0, true},
}

type header struct {
	n    int
	typ  frameType
	bits uint8
	lane uint32
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// parseHeader reads the first headerSize bytes of b.
func parseHeader(b []byte) (header, error) {
	h := header{int(binary.LittleEndian.Uint32(b)), frameType(b[4]), b[5], binary.LittleEndian.Uint32(b[8:])}
	if h.typ == 0 || int(h.typ) >= len(limits) {
		return h, protocolError("type %d", h.typ)
	}
	limit := limits[h.typ]
	switch {
	case h.n > limit.body:
		return h, protocolError("%d bytes of type %d", h.n, h.typ)
	case h.bits&^limit.bits != 0 || b[6]|b[7] != 0:
		return h, protocolError("bits %#x of type %d", b[5:8], h.typ)
	case (h.lane != 0) != limit.lane:
		return h, protocolError("type %d for lane %d", h.typ, h.lane)
	}
	return h, nil
}

// appendFrame appends a trunk frame whose body is made of a and b.
func appendFrame(to []byte, typ frameType, bits uint8, lane uint32, a, b []byte) []byte {
	to = appendHeader(to, len(a)+len(b), typ, bits, lane)
	return append(append(to, a...), b...)
}

func appendHeader(to []byte, n int, typ frameType, bits uint8, lane uint32) []byte {
	to = binary.LittleEndian.AppendUint32(to, uint32(n))
	to = append(to, byte(typ), bits, 0, 0)
	return binary.LittleEndian.AppendUint32(to, lane)
}

// piece is the body of a data frame: a frame of a flow, or a part of one.
type piece struct {
	frame                fdipc.Frame // without a payload; of the first piece
	total                int         // the frame's payload in bytes
	more, continues, cut bool
	payload              []byte // borrowed
}

// parsePiece reads the body of a data frame.
func parsePiece(h header, b []byte) (piece, error) {
	p := piece{more: h.bits&bitMore != 0, continues: h.bits&bitContinues != 0, cut: h.bits&bitCut != 0}
	p.frame.Lane = flowOf(h.bits)
	limit := maxFrame
	if p.frame.Lane == fdipc.Control {
		limit = maxControlFrame
	}
	if p.continues {
		p.payload = b
		switch {
		case h.bits&bitTrace != 0 || p.cut && (p.more || len(b) > 0):
			return p, protocolError("bits %#x of a piece", h.bits)
		case len(b) > maxPiece || len(b) == 0 && !p.cut:
			return p, protocolError("%d bytes in a piece", len(b))
		}
		return p, nil
	}
	if p.cut || len(b) < pieceHead {
		return p, protocolError("no head of a frame")
	}
	p.frame.Kind, p.frame.Flags, p.frame.Target = fdipc.Kind(b[0]), b[1], binary.LittleEndian.Uint64(b[2:])
	if p.frame.Kind < firstKind {
		return p, protocolError("kind %d", p.frame.Kind)
	}
	b = b[pieceHead:]
	if h.bits&bitTrace != 0 {
		if copy(p.frame.Trace[:], b) < traceSize {
			return p, protocolError("no trace context")
		}
		b = b[traceSize:]
	}
	if p.more {
		if len(b) < 4 {
			return p, protocolError("no length of a frame")
		}
		p.total, b = int(binary.LittleEndian.Uint32(b)), b[4:]
		if p.total <= len(b) || p.total > limit || len(b) == 0 {
			return p, protocolError("%d bytes of a frame of %d", len(b), p.total)
		}
	} else {
		p.total = len(b)
	}
	if len(b) > maxPiece {
		return p, protocolError("%d bytes in a piece", len(b))
	}
	p.payload = b
	return p, nil
}

// appendPiece appends a data frame with part of f's payload: its first n bytes if at is 0, else
// those from at on.
func appendPiece(to []byte, lane uint32, f *fdipc.Frame, at, n int) []byte {
	var bits uint8
	if f.Lane == fdipc.Data {
		bits = bitData
	}
	body, more := n, at+n < len(f.Payload)
	if more {
		bits |= bitMore
	}
	if at > 0 {
		return append(appendHeader(to, body, typeData, bits|bitContinues, lane), f.Payload[at:at+n]...)
	}
	body += pieceHead
	traced := f.Trace != fdipc.TraceContext{}
	if traced {
		bits |= bitTrace
		body += traceSize
	}
	if more {
		body += 4
	}
	to = appendHeader(to, body, typeData, bits, lane)
	to = binary.LittleEndian.AppendUint64(append(to, byte(f.Kind), f.Flags), f.Target)
	if traced {
		to = append(to, f.Trace[:]...)
	}
	if more {
		to = binary.LittleEndian.AppendUint32(to, uint32(len(f.Payload)))
	}
	return append(to, f.Payload[:n]...)
}

// assembly makes a frame of its pieces.
type assembly struct {
	frame fdipc.Frame
	total int
}

// add adds the next piece; done means that the frame is whole. The buffer grows as the bytes come,
// so what a peer announces costs nothing.
func (a *assembly) add(p piece) (done bool, err error) {
	if !p.continues {
		a.frame, a.total = p.frame, p.total
	}
	a.frame.Payload = append(a.frame.Payload, p.payload...)
	if have := len(a.frame.Payload); have > a.total || (have == a.total) == p.more {
		return false, protocolError("%d bytes of a frame of %d", have, a.total)
	}
	return !p.more, nil
}

func flowOf(bits uint8) fdipc.Lane {
	if bits&bitData != 0 {
		return fdipc.Data
	}
	return fdipc.Control
}

// hello says who a side is.
type hello struct {
	oldest, newest uint16 // versions of the protocol that it speaks
	features       uint32 // none yet; what both have is used
	lost           uint64 // the number of the last trunk with the other host that this side has seen end
	host           Host
	cluster        string
	to             string // the host that is meant
}

const helloMagic = "coppice\x00"

// version is that of the protocol here.
const version = 1

// firstKind is the first kind of a frame that is not the transport's; see docs/protocol.md.
const firstKind fdipc.Kind = 0x10

// bytes returns the body of the hello.
func (h *hello) bytes() []byte {
	to := []byte(helloMagic)
	to = binary.LittleEndian.AppendUint16(to, h.oldest)
	to = binary.LittleEndian.AppendUint16(to, h.newest)
	to = binary.LittleEndian.AppendUint32(to, h.features)
	to = binary.LittleEndian.AppendUint64(to, h.lost)
	to = binary.LittleEndian.AppendUint64(to, h.host.Incarnation)
	for _, s := range []string{h.cluster, h.host.Name, h.host.Boot, h.to} {
		to = append(append(to, byte(len(s))), s...)
	}
	return to
}

// parseHello reads the body of a hello. What follows the fields is a later version's.
func parseHello(b []byte) (hello, error) {
	var h hello
	n := len(helloMagic)
	if len(b) < n+24 || string(b[:n]) != helloMagic {
		return h, protocolError("not a hello")
	}
	b = b[n:]
	h.oldest, h.newest = binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:])
	h.features, h.lost = binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint64(b[8:])
	h.host.Incarnation, b = binary.LittleEndian.Uint64(b[16:]), b[24:]
	for _, s := range []*string{&h.cluster, &h.host.Name, &h.host.Boot, &h.to} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return h, protocolError("a short hello")
		}
		*s, b = string(b[1:1+b[0]]), b[1+b[0]:]
		if !ValidName(*s) {
			return h, protocolError("name %q in a hello", *s)
		}
	}
	if h.oldest > h.newest {
		return h, protocolError("versions %d to %d", h.oldest, h.newest)
	}
	return h, nil
}

// ValidName reports whether s can be the name of a cluster or a host, or a boot: 1 to 63 letters,
// digits, hyphens, underscores and dots, and no dot or hyphen first.
func ValidName(s string) bool {
	for i, c := range []byte(s) {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || i > 0 && (c == '.' || c == '-')
		if !ok {
			return false
		}
	}
	return s != "" && len(s) <= 63
}

// appendCredit appends a credit of n bytes for a flow.
func appendCredit(to []byte, bits uint8, lane uint32, n int) []byte {
	return binary.LittleEndian.AppendUint32(appendHeader(to, 4, typeCredit, bits, lane), uint32(n))
}
