package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// How the body of a message is encoded, as it stands in a frame.
const (
	codecProto byte = 0 // protobuf; the type's name is the message's full name
	codecCBOR  byte = 1 // RFC 8949; the type's name is that given to RegisterType
)

// maxElements is how many elements one array, slice or map of a message may have, strings and
// byte slices apart. What all of them may take together is bounded in footprint.go.
const maxElements = 1 << 20

// maxNesting is how deep arrays and maps of a message may be nested.
const maxNesting = 64

// codec encodes and decodes a registered type.
type codec struct {
	name   string
	head   []byte // as it stands in a frame
	typ    reflect.Type
	fields typeFields
	append func(b []byte, msg any) ([]byte, error)
	decode func(b []byte) (any, error)
}

// types are the registered ones. They are written at init, mostly, and read for
// every message: the tables are never changed, but replaced under mu.
var types struct {
	mu  sync.Mutex
	now atomic.Pointer[typeTable]
}

type typeTable struct {
	byType map[reflect.Type]*codec
	byName map[string]*codec
}

func registered() *typeTable {
	if t := types.now.Load(); t != nil {
		return t
	}
	return &typeTable{}
}

// RegisterType lets messages of type T cross processes, under a name that both
// ends know. Call it from init or before the tree starts, in all processes alike. The type that was
// sent is the type that arrives: register the pointer type if pointers are sent.
//
//	actors.RegisterType[*SessionPut]("sessions.put")
//
// The encoding is CBOR of the exported fields, under their names or as json or
// cbor tags say. Between two versions of a program, a field that the sender does
// not have is zero at the receiver; one that the receiver does not have, or has
// with another type, is [ErrSkew], as nothing is dropped in silence. So teach the
// receivers first, or give the changed type a new name. A new field with omitempty that
// is zero is not sent and does no harm. Protobuf messages follow protobuf's rules and need not be
// registered. Strings, byte slices, bool, int, int64, uint64, float64, time.Time
// and time.Duration are registered.
//
// A slice or a map has at most 1,048,576 elements, nested at most 64 deep; a []byte or a
// string is bounded by the message alone. Decoded, a message may take 64 MiB of memory, or 16
// times its length if that is more, by the sizes of its slices' elements, its maps' entries and
// what its pointers point to. What has more is [ErrMalformed].
//
// It panics, as gob.Register does, when the name or the type is registered
// otherwise, or when T is an interface, a function or a channel.
func RegisterType[T any](name string) {
	typ := reflect.TypeFor[T]()
	if name == "" || len(name) > maxType {
		panic(fmt.Sprintf("actors: RegisterType[%s]: the name has %d bytes, not 1 to %d", typ, len(name), maxType))
	}
	elem := typ
	if typ.Kind() == reflect.Pointer {
		elem = typ.Elem()
	}
	switch elem.Kind() {
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Pointer:
		panic(fmt.Sprintf("actors: RegisterType[%s]: a %s can not cross processes", typ, elem.Kind()))
	}
	c := &codec{name: name, head: appendString([]byte{codecCBOR}, name), typ: typ, fields: typeFieldsOf(typ), append: appendCBOR}
	unmarshal := decoderOf(typ)
	if typ.Kind() == reflect.Pointer {
		c.decode = func(b []byte) (any, error) {
			v := reflect.New(elem).Interface()
			return v, unmarshal(b, v)
		}
	} else {
		c.decode = func(b []byte) (any, error) {
			var v T
			err := unmarshal(b, &v)
			return v, err
		}
	}
	defer announceToAll() // without the lock
	types.mu.Lock()
	defer types.mu.Unlock()
	t := registered()
	if old := t.byName[name]; old != nil && old.typ != typ {
		panic(fmt.Sprintf("actors: RegisterType[%s]: %q is the name of %s", typ, name, old.typ))
	}
	if old := t.byType[typ]; old != nil && old.name != name {
		panic(fmt.Sprintf("actors: RegisterType[%s]: %q: it has the name %q", typ, name, old.name))
	}
	switch reflect.TypeFor[T]() { // many messages are no more than that
	case reflect.TypeFor[[]byte]():
		c.append, c.decode = appendBytes, readBytes
	case reflect.TypeFor[string]():
		c.append, c.decode = appendUTF8, readUTF8
	}
	t = &typeTable{maps.Clone(t.byType), maps.Clone(t.byName)}
	if t.byType == nil {
		t.byType, t.byName = make(map[reflect.Type]*codec), make(map[string]*codec)
	}
	t.byType[typ], t.byName[name] = c, c
	types.now.Store(t)
	announcers.bytes.Store(nil)
}

func init() {
	RegisterType[string]("string")
	RegisterType[[]byte]("bytes")
	RegisterType[bool]("bool")
	RegisterType[int]("int")
	RegisterType[int64]("int64")
	RegisterType[uint64]("uint64")
	RegisterType[float64]("float64")
	RegisterType[time.Time]("time")
	RegisterType[time.Duration]("duration")
}

// Times keep nanoseconds and zone. The decoder checks that the whole is well-formed before it
// allocates; what it may allocate then is bounded by decoderOf.
var (
	encoding = must(cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode())
	decoding = must(cbor.DecOptions{
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxElements,
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode())
)

// unreadable tells what is of another version from what is broken.
func unreadable(head []byte, err error) error {
	r := &reader{b: head[1:]}
	name := r.bytes(maxType)
	var unknown *cbor.UnknownFieldError
	var other *cbor.UnmarshalTypeError
	if errors.As(err, &unknown) || errors.As(err, &other) {
		return fmt.Errorf("%w: decode %q: %w", ErrSkew, name, err)
	}
	return fmt.Errorf("%w: decode %q: %w", ErrMalformed, name, err)
}

func appendCBOR(b []byte, msg any) ([]byte, error) {
	body, err := encoding.Marshal(msg)
	if err != nil {
		return b, fmt.Errorf("%w: encode %T: %w", ErrMalformed, msg, err)
	}
	return append(b, body...), nil
}

// CBOR's major types of byte and text strings. Both are a head, with the length,
// and the bytes themselves.
const (
	majorBytes byte = 2 << 5
	majorText  byte = 3 << 5
)

func appendHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case uint64(n) < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), uint64(n))
}

// plain returns the bytes after a head of a definite length that is exactly theirs.
func plain(b []byte, major byte) ([]byte, bool) {
	if len(b) == 0 || b[0]&0xe0 != major {
		return nil, false
	}
	n, head := uint64(b[0]&0x1f), 1
	switch {
	case n < 24:
	case n <= 27:
		size := 1 << (n - 24)
		if len(b) < 1+size {
			return nil, false
		}
		n, head = 0, 1+size
		for _, x := range b[1:head] {
			n = n<<8 | uint64(x)
		}
	default: // of an indefinite length, or not well-formed
		return nil, false
	}
	return b[head:], n == uint64(len(b)-head)
}

func appendBytes(b []byte, msg any) ([]byte, error) {
	v := msg.([]byte)
	if v == nil {
		return appendCBOR(b, msg)
	}
	return append(appendHead(b, majorBytes, len(v)), v...), nil
}

func readBytes(b []byte) (any, error) {
	if v, ok := plain(b, majorBytes); ok {
		return append(make([]byte, 0, len(v)), v...), nil
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
	if v, ok := plain(b, majorText); ok && utf8.Valid(v) {
		return string(v), nil
	}
	var v string
	err := decoding.Unmarshal(b, &v)
	return v, err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options are constant
	}
	return v
}

// messageWriter encodes messages. It keeps the type of the last one, which is that of the
// next one most often. The zero value is ready.
type messageWriter struct {
	types *typeTable // in which codec was found
	typ   reflect.Type
	codec *codec // nil: typ is not registered
}

// codecOf returns the codec of a registered type; nil: it is none.
func (w *messageWriter) codecOf(msg any) *codec {
	if typ, now := reflect.TypeOf(msg), types.now.Load(); typ != w.typ || now != w.types {
		w.types, w.typ, w.codec = now, typ, now.byType[typ]
	}
	return w.codec
}

// append appends codec, type name and body of msg.
func (w *messageWriter) append(b []byte, msg any) (_ []byte, err error) {
	defer func() { // a user's marshaler
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: encoding %T panicked: %v", ErrMalformed, msg, v)
		}
	}()
	if c := w.codecOf(msg); c != nil {
		return c.append(append(b, c.head...), msg)
	}
	m, ok := msg.(proto.Message)
	if !ok {
		return b, fmt.Errorf("%w: %T", ErrType, msg)
	}
	if r := m.ProtoReflect(); r.IsValid() {
		b = appendString(append(b, codecProto), string(r.Descriptor().FullName()))
		if b, err = (proto.MarshalOptions{}).MarshalAppend(b, m); err == nil {
			return b, nil
		}
	} else {
		err = fmt.Errorf("nil pointer")
	}
	return b, fmt.Errorf("%w: encode %T: %w", ErrMalformed, msg, err)
}

// messageReader decodes what messageWriter wrote. It keeps the type of the last
// message, which is that of the next one most often.
type messageReader struct {
	head   []byte // codec and name
	decode func(b []byte) (any, error)
}

// read decodes a message. b is borrowed: the message has no part of it.
func (t *messageReader) read(b []byte) (msg any, err error) {
	defer func() { // a user's unmarshaler
		if v := recover(); v != nil {
			msg, err = nil, fmt.Errorf("%w: decoding panicked: %v", ErrMalformed, v)
		}
	}()
	n := len(t.head)
	if n == 0 || n > len(b) || string(t.head) != string(b[:n]) {
		if n, err = t.find(b); err != nil {
			return nil, err
		}
	}
	if msg, err = t.decode(b[n:]); err != nil {
		return nil, unreadable(t.head, err)
	}
	return msg, nil
}

// find finds the type of the message in b and returns the length of its head.
func (t *messageReader) find(b []byte) (n int, err error) {
	r := &reader{b: b}
	how, name := r.byte(), r.bytes(maxType)
	if r.bad {
		return 0, fmt.Errorf("%w: no type", ErrMalformed)
	}
	var decode func(b []byte) (any, error)
	switch how {
	case codecCBOR:
		c := registered().byName[string(name)]
		if c == nil {
			return 0, fmt.Errorf("%w: %q", ErrType, name)
		}
		decode = c.decode
	case codecProto:
		typ, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		if err != nil {
			return 0, fmt.Errorf("%w: %q", ErrType, name)
		}
		decode = func(b []byte) (any, error) {
			m := typ.New().Interface()
			return m, proto.Unmarshal(b, m)
		}
	default:
		return 0, fmt.Errorf("%w: codec %d", ErrMalformed, how)
	}
	n = len(b) - len(r.b)
	t.head, t.decode = append(t.head[:0], b[:n]...), decode
	return n, nil
}
