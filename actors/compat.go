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

// typeFields is what decides whether another version can read a type.
type typeFields struct {
	fields []string // paths of all fields, sorted: what can be read
	always []string // those that are always written: without omitempty
}

// typeFieldsOf lists the fields of t as the codec sees them. A type that encodes
// itself has none.
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

// announcers are the systems that have told others of their types, and what they told.
var announcers struct {
	mu      sync.Mutex
	systems map[*System]struct{}
	bytes   atomic.Pointer[[]byte] // nil: to be made

	order sync.Mutex // held across a post: the last that a peer is told is all; before any other lock
}

// ownTypes returns what this process tells of its types.
func ownTypes() []byte {
	if b := announcers.bytes.Load(); b != nil {
		return *b
	}
	types.mu.Lock()
	defer types.mu.Unlock()
	byName := registered().byName
	b := binary.AppendUvarint(nil, uint64(len(byName)))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c := byName[name]
		b = appendString(b, name)
		b = binary.AppendUvarint(b, uint64(len(c.fields.fields)))
		for _, f := range c.fields.fields {
			b = appendString(b, f)
		}
	}
	announcers.bytes.Store(&b) // under the lock: what is registered after it resets this
	return b
}

// announceTypes tells the process behind l which types this one has.
func (s *System) announceTypes(p *peer) {
	announcers.mu.Lock()
	if announcers.systems == nil {
		announcers.systems = make(map[*System]struct{})
	}
	announcers.systems[s] = struct{}{}
	announcers.mu.Unlock()
	announcers.order.Lock()
	defer announcers.order.Unlock()
	p.post(s.frame(kindTypes, fdipc.Data), func(b []byte) []byte {
		return append(appendPID(b, ProcessPID(p.address)), ownTypes()...)
	})
}

// announceToAll tells all of a type that was registered late.
func announceToAll() {
	announcers.mu.Lock()
	systems := slices.Collect(maps.Keys(announcers.systems))
	announcers.mu.Unlock()
	for _, s := range systems {
		s.mu.RLock()
		links := slices.Collect(maps.Values(s.peers))
		s.mu.RUnlock()
		for _, p := range links {
			s.announceTypes(p)
		}
	}
}

func (s *System) stopAnnouncing() {
	announcers.mu.Lock()
	delete(announcers.systems, s)
	announcers.mu.Unlock()
}

// peerTypes is what a peer can read.
type peerTypes struct {
	fields   map[string][]string // by type name; sorted
	verdicts sync.Map            // *codec -> error, or nil
}

func (s *System) onTypes(p *peer, r *reader) {
	if bytes.Equal(r.b, ownTypes()) {
		p.readable.Store(nil) // as this one: nothing to check
		return
	}
	count := r.uint()
	if count > maxTypes {
		r.fail()
	}
	pt := &peerTypes{fields: make(map[string][]string)}
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
		pt.fields[name] = fields
	}
	if r.bad {
		s.countMalformed(p, kindTypes)
		return
	}
	p.readable.Store(pt)
}

// canRead says why the process behind l could not read msg, as far as is known here.
func (p *peer) canRead(msg any) error {
	pt := p.readable.Load()
	if pt == nil {
		return nil
	}
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
		err = fmt.Errorf("%w in process %s: %q", ErrType, p.address, c.name)
	}
	for _, f := range c.fields.always {
		if _, has := slices.BinarySearch(fields, f); ok && !has {
			err = fmt.Errorf("%w: %q in process %s has no field %s", ErrSkew, c.name, p.address, f[1:])
			break
		}
	}
	pt.verdicts.Store(c, err)
	return err
}
