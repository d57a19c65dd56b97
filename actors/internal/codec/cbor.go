package codec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// maxElements is how many elements one array, slice or map of a message may have, strings and byte
// slices apart. What all of them may take together is bounded in footprint.go.
const maxElements = 1 << 20

// maxNesting is how deep arrays and maps of a message may be nested.
const maxNesting = 64

// Times keep nanoseconds and zone. The decoder checks that the whole is well-formed before it
// allocates; what it may allocate then is bounded by decoderOf.
var (
	encoding = must(cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.UserBufferEncMode())
	decoding = must(cbor.DecOptions{
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode())
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func appendCBOR(b []byte, msg any) ([]byte, error) {
	buf := buffers.Get().(*bytes.Buffer)
	*buf = *bytes.NewBuffer(b)
	if err := encoding.MarshalToBuffer(msg, buf); err != nil {
		return b, fmt.Errorf("%w: encode %T: %w", ErrMalformed, msg, err)
	}
	b = buf.Bytes()
	*buf = bytes.Buffer{} // b is the caller's
	buffers.Put(buf)
	return b, nil
}

// Major types of CBOR, as they stand in the first three bits of a head.
const (
	majorUnsigned = 0 << 5
	majorNegative = 1 << 5
	majorBytes    = 2 << 5
	majorText     = 3 << 5
	majorArray    = 4 << 5
	majorMap      = 5 << 5
	majorTag      = 6 << 5
)

func appendHead[N int | uint64](b []byte, major byte, value N) []byte {
	switch n := uint64(value); {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), uint64(value))
}

// readHead reads the head of an item: its major type, and its value, or that it ends with a break
// (endless). ok is false if the head is not well-formed.
func readHead(b []byte) (major byte, n uint64, endless bool, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, 0, false, nil, false
	}
	major, n = b[0]&0xe0, uint64(b[0]&0x1f)
	b = b[1:]
	switch {
	case n < 24:
		return major, n, false, b, true
	case n <= 27 && len(b) >= 1<<(n-24):
		size := 1 << (n - 24)
		var v [8]byte
		copy(v[8-size:], b[:size])
		return major, binary.BigEndian.Uint64(v[:]), false, b[size:], true
	case n == 31 && (major == majorBytes || major == majorText || major == majorArray || major == majorMap):
		return major, 0, true, b, true
	}
	return 0, 0, false, nil, false
}

// readString returns the bytes of a string of a definite length, if b is that and no more.
func readString(b []byte, want byte) ([]byte, bool) {
	if len(b) > 1 && b[0] == want|24 && int(b[1]) == len(b)-2 { // 24 to 255 bytes
		return b[2:], true
	}
	major, n, endless, rest, ok := readHead(b)
	return rest, ok && major == want && !endless && n == uint64(len(rest))
}

func appendBytes(b []byte, msg any) ([]byte, error) {
	v := msg.([]byte)
	if v == nil {
		return appendCBOR(b, msg)
	}
	return append(appendHead(b, majorBytes, len(v)), v...), nil
}

func readBytes(b []byte) (any, error) {
	if v, ok := readString(b, majorBytes); ok {
		c := make([]byte, len(v))
		copy(c, v) // the two lines are one call to the compiler, which does not clear c
		return c, nil
	}
	var v []byte
	err := decoding.Unmarshal(b, &v)
	return v, err
}

func appendUTF8(b []byte, msg any) ([]byte, error) {
	v := msg.(string)
	if !utf8.ValidString(v) { // the receiver would refuse it
		return b, fmt.Errorf("%w: encode string: not UTF-8", ErrMalformed)
	}
	return append(appendHead(b, majorText, len(v)), v...), nil
}

func readUTF8(b []byte) (any, error) {
	if v, ok := readString(b, majorText); ok && utf8.Valid(v) {
		return string(v), nil
	}
	var v string
	err := decoding.Unmarshal(b, &v)
	return v, err
}

type integer interface{ int | int64 | uint64 }

func appendInteger[T integer](b []byte, msg any) ([]byte, error) {
	v := msg.(T)
	if v < 0 {
		return appendHead(b, majorNegative, uint64(^v)), nil
	}
	return appendHead(b, majorUnsigned, uint64(v)), nil
}

func readInteger[T integer](b []byte) (any, error) {
	if major, n, endless, rest, ok := readHead(b); ok && !endless && len(rest) == 0 {
		if v := T(n); major == majorUnsigned && v >= 0 && uint64(v) == n {
			return v, nil
		}
		if v := ^T(n); major == majorNegative && v < 0 && uint64(^v) == n {
			return v, nil
		}
	}
	var v T
	err := decoding.Unmarshal(b, &v)
	return v, err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options are constant
	}
	return v
}
