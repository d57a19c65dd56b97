package codec

import (
	"bytes"
	stdencoding "encoding"
	"encoding/binary"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/fxamacker/cbor/v2"
)

// Two processes of one tree can run two versions of a program, during a reload. Each sends the
// other the types that it has registered, with their fields, so that a message which the other end
// could not read fails at its sender.

// Limits of the list of types that a peer sends.
const (
	maxTypes  = 1 << 14
	maxFields = 1 << 16
)

// typeFields is what decides whether another version can read a type.
type typeFields struct {
	all    []string // paths of all fields, sorted: what can be read
	always []string // those that are always written: without omitempty
}

// typeFieldsOf lists the fields of t as the codec sees them. A type that encodes itself has none.
func typeFieldsOf(t reflect.Type) typeFields {
	all, always := make(map[string]bool), make(map[string]bool)
	walkFields(t, "", true, nil, all, always)
	return typeFields{slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(always))}
}

var encodesItself = []reflect.Type{
	reflect.TypeFor[cbor.Marshaler](), reflect.TypeFor[stdencoding.BinaryMarshaler](), reflect.TypeFor[stdencoding.TextMarshaler](),
}

func walkFields(t reflect.Type, path string, written bool, above []reflect.Type, all, always map[string]bool) {
	for _, own := range encodesItself {
		if t.Implements(own) || reflect.PointerTo(t).Implements(own) {
			return
		}
	}
	switch t.Kind() {
	case reflect.Pointer:
		// What it points to may not be there, but then nothing of it is written.
		walkFields(t.Elem(), path, written, above, all, always)
		return
	case reflect.Slice, reflect.Array, reflect.Map:
		walkFields(t.Elem(), path, false, above, all, always)
		return
	case reflect.Struct:
	default:
		return
	}
	if slices.Contains(above, t) {
		return
	}
	above = append(slices.Clone(above), t)
	for i := range t.NumField() {
		f := t.Field(i)
		tag, ok := f.Tag.Lookup("cbor")
		if !ok {
			tag = f.Tag.Get("json")
		}
		name, options, _ := strings.Cut(tag, ",")
		if tag == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		omitted := strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
		if f.Anonymous && name == "" {
			walkFields(f.Type, path, written && f.Type.Kind() != reflect.Pointer, above, all, always)
			continue
		}
		if name == "" {
			name = f.Name
		}
		at := path + "." + name
		all[at] = true
		if written && !omitted {
			always[at] = true
		}
		walkFields(f.Type, at, written && !omitted && f.Type.Kind() != reflect.Pointer, above, all, always)
	}
}

// ownTypesBytes caches what ownTypes returns. Nil: to be made.
var ownTypesBytes atomic.Pointer[[]byte]

// OwnTypes returns the list of this process's registered types and their fields, as it is sent to a
// peer.
func OwnTypes() []byte {
	if b := ownTypesBytes.Load(); b != nil {
		return *b
	}
	types.mu.Lock()
	defer types.mu.Unlock()
	byName := registered().byName
	b := binary.AppendUvarint(nil, uint64(len(byName)))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c := byName[name]
		b = wire.AppendString(b, name)
		b = binary.AppendUvarint(b, uint64(len(c.fields().all)))
		for _, f := range c.fields().all {
			b = wire.AppendString(b, f)
		}
	}
	ownTypesBytes.Store(&b) // under the lock: a later registration resets it
	return b
}

// PeerTypes are the types and fields that a peer can read. It may be used concurrently.
type PeerTypes struct {
	fields   map[string][]string // by type name; sorted
	verdicts sync.Map            // *codec -> error, or nil
}

// ReadPeerTypes reads what ownTypes of the peer returned. It returns nil if the peer has the same
// types as this process, so that there is nothing to check.
func ReadPeerTypes(r *wire.Reader) *PeerTypes {
	if bytes.Equal(r.B, OwnTypes()) {
		return nil
	}
	count := r.Uint()
	if count > maxTypes {
		r.Fail()
	}
	pt := &PeerTypes{fields: make(map[string][]string)}
	left := uint64(maxFields)
	for ; count > 0 && !r.Bad; count-- {
		name, n := r.Text(wire.MaxType), r.Uint()
		if n > left {
			r.Fail()
		}
		left -= n
		var fields []string
		for ; n > 0 && !r.Bad; n-- {
			fields = append(fields, r.Text(wire.MaxText))
		}
		pt.fields[name] = fields
	}
	return pt
}

// Check returns why the peer, the process with an address, could not read msg: errType or errSkew.
// It returns nil if it can, as far as this process knows.
func (pt *PeerTypes) Check(msg any, address string) error {
	c := registered().byType[reflect.TypeOf(msg)]
	if c == nil {
		return nil // protobuf, or refused anyway
	}
	if v, ok := pt.verdicts.Load(c); ok {
		err, _ := v.(error)
		return err
	}
	var err error
	fields, ok := pt.fields[c.name]
	if !ok {
		err = fmt.Errorf("%w in process %s: %q", ErrType, address, c.name)
	}
	for _, f := range c.fields().always {
		if _, has := slices.BinarySearch(fields, f); ok && !has {
			err = fmt.Errorf("%w: %q in process %s has no field %s", ErrSkew, c.name, address, f[1:])
			break
		}
	}
	pt.verdicts.Store(c, err)
	return err
}
