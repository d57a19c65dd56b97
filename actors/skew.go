package actors

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

	"github.com/coppice-go/coppice/fdipc"
	"github.com/fxamacker/cbor/v2"
)

// Two processes of one tree can run two versions of a program, during a reload.
// Each tells the other once which types it has registered, and which fields they
// have, so that a message which the other end could not read fails at its sender.

// Limits of what a peer may tell.
const (
	maxTypes  = 1 << 14
	maxFields = 1 << 16
)

// shape is what decides whether another version can read a type.
type shape struct {
	fields []string // paths of all fields, sorted: what can be read
	always []string // those that are always written: without omitempty
}

// shapeOf lists the fields of t as the codec sees them. A type that encodes
// itself has none.
func shapeOf(t reflect.Type) shape {
	all, always := make(map[string]bool), make(map[string]bool)
	walkShape(t, "", true, nil, all, always)
	return shape{slices.Sorted(maps.Keys(all)), slices.Sorted(maps.Keys(always))}
}

var ownEncodings = []reflect.Type{
	reflect.TypeFor[cbor.Marshaler](), reflect.TypeFor[stdencoding.BinaryMarshaler](), reflect.TypeFor[stdencoding.TextMarshaler](),
}

func walkShape(t reflect.Type, path string, written bool, above []reflect.Type, all, always map[string]bool) {
	for _, own := range ownEncodings {
		if t.Implements(own) || reflect.PointerTo(t).Implements(own) {
			return
		}
	}
	switch t.Kind() {
	case reflect.Pointer:
		// What it points to may not be there, but then nothing of it is written.
		walkShape(t.Elem(), path, written, above, all, always)
		return
	case reflect.Slice, reflect.Array, reflect.Map:
		walkShape(t.Elem(), path, false, above, all, always)
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
			walkShape(f.Type, path, written && f.Type.Kind() != reflect.Pointer, above, all, always)
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
		walkShape(f.Type, at, written && !omitted && f.Type.Kind() != reflect.Pointer, above, all, always)
	}
}

// told are the systems that have told others of their types, and what they told.
var told struct {
	mu      sync.Mutex
	systems map[*System]struct{}
	bytes   atomic.Pointer[[]byte] // nil: to be made

	order sync.Mutex // held across a post: the last that a link is told is all; before any other lock
}

// announcement returns what this process tells of its types.
func announcement() []byte {
	if b := told.bytes.Load(); b != nil {
		return *b
	}
	types.mu.Lock()
	defer types.mu.Unlock()
	byName := registered().byName
	b := binary.AppendUvarint(nil, uint64(len(byName)))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c := byName[name]
		b = appendString(b, name)
		b = binary.AppendUvarint(b, uint64(len(c.shape.fields)))
		for _, f := range c.shape.fields {
			b = appendString(b, f)
		}
	}
	told.bytes.Store(&b) // under the lock: what is registered after it resets this
	return b
}

// tellTypes tells the process behind l which types this one has.
func (s *System) tellTypes(l *link) {
	told.mu.Lock()
	if told.systems == nil {
		told.systems = make(map[*System]struct{})
	}
	told.systems[s] = struct{}{}
	told.mu.Unlock()
	told.order.Lock()
	defer told.order.Unlock()
	l.post(s.frame(kindTypes, fdipc.Data), func(b []byte) []byte {
		return append(appendPID(b, ProcessPID(l.address)), announcement()...)
	})
}

// retellTypes tells all of a type that was registered late.
func retellTypes() {
	told.mu.Lock()
	systems := slices.Collect(maps.Keys(told.systems))
	told.mu.Unlock()
	for _, s := range systems {
		s.mu.RLock()
		links := slices.Collect(maps.Values(s.links))
		s.mu.RUnlock()
		for _, l := range links {
			s.tellTypes(l)
		}
	}
}

func (s *System) forgetTold() {
	told.mu.Lock()
	delete(told.systems, s)
	told.mu.Unlock()
}

// readable is what a peer can read.
type readable struct {
	fields   map[string][]string // by type name; sorted
	verdicts sync.Map            // *codec -> error, or nil
}

func (s *System) onTypes(l *link, r *reader) {
	if bytes.Equal(r.b, announcement()) {
		l.peer.Store(nil) // as this one: nothing to check
		return
	}
	count := r.uint()
	if count > maxTypes {
		r.fail()
	}
	p := &readable{fields: make(map[string][]string)}
	left := uint64(maxFields)
	for ; count > 0 && !r.bad; count-- {
		name, n := r.string(maxType), r.uint()
		if n > left {
			r.fail()
		}
		left -= n
		var fields []string
		for ; n > 0 && !r.bad; n-- {
			fields = append(fields, r.string(maxText))
		}
		p.fields[name] = fields
	}
	if r.bad {
		s.bad(l, kindTypes)
		return
	}
	l.peer.Store(p)
}

// canRead says why the process behind l could not read msg, as far as is known here.
func (l *link) canRead(msg any) error {
	p := l.peer.Load()
	if p == nil {
		return nil
	}
	c := registered().byType[reflect.TypeOf(msg)]
	if c == nil {
		return nil // protobuf, or refused anyway
	}
	if v, ok := p.verdicts.Load(c); ok {
		err, _ := v.(error)
		return err
	}
	var err error
	fields, ok := p.fields[c.name]
	if !ok {
		err = fmt.Errorf("%w in process %s: %q", ErrType, l.address, c.name)
	}
	for _, f := range c.shape.always {
		if _, has := slices.BinarySearch(fields, f); ok && !has {
			err = fmt.Errorf("%w: %q in process %s has no field %s", ErrSkew, c.name, l.address, f[1:])
			break
		}
	}
	p.verdicts.Store(c, err)
	return err
}
