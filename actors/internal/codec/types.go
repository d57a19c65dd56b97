// Package codec encodes and decodes the messages of actors: protobuf messages as they are,
// registered types as CBOR (RFC 8949).
//
//   - types.go: the table of registered types.
//   - message.go: a message as it stands in a frame: codec, type name, body.
//   - cbor.go: the options of the CBOR library, and strings without it.
//   - footprint.go: how much memory a message would take, before it is decoded.
//   - typefields.go: which fields a type has, so that a message that a process of another version
//     could not read fails at its sender.
package codec

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/actors/internal/wire"
)

// Why a message cannot be encoded or decoded. They are documented in package actors.
var (
	ErrType      = errors.New("message type not registered by actors.RegisterType")
	ErrMalformed = errors.New("malformed message")
	ErrSkew      = errors.New("message type differs between versions")
)

// codec encodes and decodes a registered type.
type codec struct {
	name   string
	head   []byte // as it stands in a frame
	typ    reflect.Type
	fields func() typeFields // looked up when it goes to a peer, or has come from one
	append func(b []byte, msg any) ([]byte, error)
	decode func(b []byte) (any, error)
}

// types are the registered ones. They are written at init, mostly, and read for every message: the
// tables are never changed, but replaced under mu.
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

// Register registers the message type T under a name: see RegisterType of package actors.
func Register[T any](name string) {
	typ := reflect.TypeFor[T]()
	if name == "" || len(name) > wire.MaxType {
		panic(fmt.Sprintf("actors: RegisterType[%s]: the name has %d bytes, not 1 to %d", typ, len(name), wire.MaxType))
	}
	elem := typ
	if typ.Kind() == reflect.Pointer {
		elem = typ.Elem()
	}
	switch elem.Kind() {
	case reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Pointer:
		panic(fmt.Sprintf("actors: RegisterType[%s]: a %s can not cross processes", typ, elem.Kind()))
	}
	c := &codec{name: name, head: wire.AppendString([]byte{codecCBOR}, name), typ: typ, fields: sync.OnceValue(func() typeFields { return typeFieldsOf(typ) }), append: appendCBOR}
	unmarshal := decoderOf(typ, decoding)
	if typ.Kind() == reflect.Pointer {
		c.decode = func(b []byte) (any, error) {
			v := reflect.New(elem).Interface()
			return v, unmarshal(b, v)
		}
	} else {
		room := sync.Pool{New: func() any { return new(T) }} // what stands in an interface is a copy
		c.decode = func(b []byte) (any, error) {
			p := room.Get().(*T)
			if err := unmarshal(b, p); err != nil {
				return *p, err
			}
			v := *p
			*p = *new(T)
			room.Put(p)
			return v, nil
		}
	}
	types.mu.Lock()
	defer types.mu.Unlock()
	t := registered()
	if old := t.byName[name]; old != nil && old.typ != typ {
		panic(fmt.Sprintf("actors: RegisterType[%s]: %q is the name of %s", typ, name, old.typ))
	}
	if old := t.byType[typ]; old != nil && old.name != name {
		panic(fmt.Sprintf("actors: RegisterType[%s]: %q: it has the name %q", typ, name, old.name))
	}
	switch reflect.TypeFor[T]() { // a message is often just one of these
	case reflect.TypeFor[[]byte]():
		c.append, c.decode = appendBytes, readBytes
	case reflect.TypeFor[string]():
		c.append, c.decode = appendUTF8, readUTF8
	case reflect.TypeFor[int]():
		c.append, c.decode = appendInteger[int], readInteger[int]
	case reflect.TypeFor[int64]():
		c.append, c.decode = appendInteger[int64], readInteger[int64]
	case reflect.TypeFor[uint64]():
		c.append, c.decode = appendInteger[uint64], readInteger[uint64]
	}
	t = &typeTable{maps.Clone(t.byType), maps.Clone(t.byName)}
	if t.byType == nil {
		t.byType, t.byName = make(map[reflect.Type]*codec), make(map[string]*codec)
	}
	t.byType[typ], t.byName[name] = c, c
	types.now.Store(t)
	ownTypesBytes.Store(nil)
}

func init() {
	Register[string]("string")
	Register[[]byte]("bytes")
	Register[bool]("bool")
	Register[int]("int")
	Register[int64]("int64")
	Register[uint64]("uint64")
	Register[float64]("float64")
	Register[time.Time]("time")
	Register[time.Duration]("duration")
}
