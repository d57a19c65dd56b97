package codec

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/coppice-go/coppice/actors/internal/wire"
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

// MessageWriter encodes messages. It keeps the type of the last one, which is that of the next one
// most often. The zero value is ready.
type MessageWriter struct {
	types *typeTable // in which codec was found
	typ   reflect.Type
	codec *codec // nil: typ is not registered
}

// codecOf returns the codec of a registered type; nil: it is none.
func (w *MessageWriter) codecOf(msg any) *codec {
	if typ, now := reflect.TypeOf(msg), types.now.Load(); typ != w.typ || now != w.types {
		w.types, w.typ, w.codec = now, typ, now.byType[typ]
	}
	return w.codec
}

// Append appends codec, type name and body of msg.
func (w *MessageWriter) Append(b []byte, msg any) (_ []byte, err error) {
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
		b = wire.AppendString(append(b, codecProto), string(r.Descriptor().FullName()))
		if b, err = (proto.MarshalOptions{}).MarshalAppend(b, m); err == nil {
			return b, nil
		}
	} else {
		err = fmt.Errorf("nil pointer")
	}
	return b, fmt.Errorf("%w: encode %T: %w", ErrMalformed, msg, err)
}

// MessageReader decodes what messageWriter wrote. It keeps the type of the last message, which is
// that of the next one most often.
type MessageReader struct {
	head   []byte // codec and name
	decode func(b []byte) (any, error)
}

// Read decodes a message. b is borrowed: the message has no part of it.
func (t *MessageReader) Read(b []byte) (msg any, err error) {
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
func (t *MessageReader) find(b []byte) (n int, err error) {
	r := &wire.Reader{B: b}
	how, name := r.Byte(), r.Bytes(wire.MaxType)
	if r.Bad {
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
	n = len(b) - len(r.B)
	t.head, t.decode = append(t.head[:0], b[:n]...), decode
	return n, nil
}

// unreadable tells what is of another version from what is broken.
func unreadable(head []byte, err error) error {
	r := &wire.Reader{B: head[1:]}
	name := r.Bytes(wire.MaxType)
	var unknown *cbor.UnknownFieldError
	var other *cbor.UnmarshalTypeError
	if errors.As(err, &unknown) || errors.As(err, &other) {
		return fmt.Errorf("%w: decode %q: %w", ErrSkew, name, err)
	}
	return fmt.Errorf("%w: decode %q: %w", ErrMalformed, name, err)
}
