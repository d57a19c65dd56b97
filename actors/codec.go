package actors

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

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

// codec encodes and decodes a registered type.
type codec struct {
	name   string
	typ    reflect.Type
	shape  shape
	decode func(b []byte) (any, error)
}

// types are the registered ones. They are written at init, mostly, and read for
// every message.
var types struct {
	mu     sync.RWMutex
	byType map[reflect.Type]*codec
	byName map[string]*codec
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
	c := &codec{name: name, typ: typ, shape: shapeOf(typ)}
	if typ.Kind() == reflect.Pointer {
		c.decode = func(b []byte) (any, error) {
			v := reflect.New(elem).Interface()
			return v, decoding.Unmarshal(b, v)
		}
	} else {
		c.decode = func(b []byte) (any, error) {
			var v T
			err := decoding.Unmarshal(b, &v)
			return v, err
		}
	}
	defer retellTypes() // without the lock
	types.mu.Lock()
	defer types.mu.Unlock()
	if types.byType == nil {
		types.byType, types.byName = make(map[reflect.Type]*codec), make(map[string]*codec)
	}
	if old := types.byName[name]; old != nil && old.typ != typ {
		panic(fmt.Sprintf("actors: RegisterType[%s]: %q is the name of %s", typ, name, old.typ))
	}
	if old := types.byType[typ]; old != nil && old.name != name {
		panic(fmt.Sprintf("actors: RegisterType[%s]: %q: it has the name %q", typ, name, old.name))
	}
	types.byType[typ], types.byName[name] = c, c
	told.bytes.Store(nil)
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

// Times keep nanoseconds and zone. What a peer sends is bounded by its length:
// the decoder checks the whole before it allocates.
var (
	encoding = must(cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode())
	decoding = must(cbor.DecOptions{
		MaxNestedLevels:   64,
		MaxArrayElements:  1 << 24,
		MaxMapPairs:       1 << 24,
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options are constant
	}
	return v
}

// appendMessage appends codec, type name and body of msg.
func appendMessage(b []byte, msg any) (_ []byte, err error) {
	defer func() { // a user's marshaler
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: encoding %T panicked: %v", ErrMalformed, msg, v)
		}
	}()
	types.mu.RLock()
	c := types.byType[reflect.TypeOf(msg)]
	types.mu.RUnlock()
	if c != nil {
		b = appendString(append(b, codecCBOR), c.name)
		body, err := encoding.Marshal(msg)
		if err != nil {
			return b, fmt.Errorf("%w: encode %T: %w", ErrMalformed, msg, err)
		}
		return append(b, body...), nil
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

// readMessage decodes what appendMessage wrote. b is borrowed: the message has no
// part of it.
func readMessage(b []byte) (msg any, err error) {
	defer func() { // a user's unmarshaler
		if v := recover(); v != nil {
			msg, err = nil, fmt.Errorf("%w: decoding panicked: %v", ErrMalformed, v)
		}
	}()
	r := &reader{b: b}
	how, name := r.byte(), r.bytes(maxType)
	if r.bad {
		return nil, fmt.Errorf("%w: no type", ErrMalformed)
	}
	switch how {
	case codecCBOR:
		types.mu.RLock()
		c := types.byName[string(name)]
		types.mu.RUnlock()
		if c == nil {
			return nil, fmt.Errorf("%w: %q", ErrType, name)
		}
		msg, err = c.decode(r.b)
	case codecProto:
		t, e := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		if e != nil {
			return nil, fmt.Errorf("%w: %q", ErrType, name)
		}
		m := t.New().Interface()
		msg, err = m, proto.Unmarshal(r.b, m)
	default:
		return nil, fmt.Errorf("%w: codec %d", ErrMalformed, how)
	}
	var unknown *cbor.UnknownFieldError
	var other *cbor.UnmarshalTypeError
	switch {
	case err == nil:
		return msg, nil
	case errors.As(err, &unknown), errors.As(err, &other):
		return nil, fmt.Errorf("%w: decode %q: %w", ErrSkew, name, err)
	}
	return nil, fmt.Errorf("%w: decode %q: %w", ErrMalformed, name, err)
}
