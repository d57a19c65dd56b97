package codec

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// A decoded CBOR message may take many times its length in memory: one byte, an empty map or null,
// is a whole element of a slice of structs. What may be too much is added up before it is decoded:
// maxFootprint bytes, or footprintFactor times the message's length if that is more.
const (
	maxFootprint    = 64 << 20
	footprintFactor = 16
)

// What Go takes, in bytes.
const (
	anySize      = 16  // an interface
	boxSize      = 32  // what is in one, slices and maps apart
	pointerSize  = 8   // a pointer
	mapSize      = 48  // a map without entries
	minSlots     = 8   // slots of a map with entries
	slotsPerPair = 2   // slots of a larger map, for each entry
	maxDirect    = 128 // a key or an element that stands in its slot; a larger one stands beside
)

// layout is what the decoder makes of a type.
type layout struct {
	kind  reflect.Kind // Invalid: of fixed size, or decoded by its own method
	size  int          // of a value, in bytes
	key   *layout
	elem  *layout
	names map[string]*layout // fields of a struct
	order []*layout          // fields of a struct that is an array
}

var anyLayout = layoutOf(reflect.TypeFor[any](), make(map[reflect.Type]*layout))

// layoutOf returns the layout of t. It adds those of all types in it to seen.
func layoutOf(t reflect.Type, seen map[reflect.Type]*layout) *layout {
	if l := seen[t]; l != nil {
		return l
	}
	l := &layout{size: int(t.Size())}
	seen[t] = l
	switch {
	case t == reflect.TypeFor[cbor.Tag]():
		l.kind = reflect.Interface
		return l
	case t == reflect.TypeFor[time.Time](), reflect.PointerTo(t).Implements(reflect.TypeFor[cbor.Unmarshaler]()):
		return l
	}
	switch t.Kind() {
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return l
		}
	case reflect.Map:
		l.key, l.elem = layoutOf(t.Key(), seen), layoutOf(t.Elem(), seen)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		l.elem = layoutOf(t.Elem(), seen)
	case reflect.Struct:
		l.names = make(map[string]*layout)
		l.addFields(t, seen, make(map[string]int), nil)
	default:
		return l
	}
	l.kind = t.Kind()
	return l
}

// addFields adds the fields of t, which is l's type or embedded in it below above. depths tells how
// deep each name was found: the least deep is the one that counts.
func (l *layout) addFields(t reflect.Type, seen map[reflect.Type]*layout, depths map[string]int, above []reflect.Type) {
	above = append(above, t)
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("cbor")
		if tag == "" {
			tag = f.Tag.Get("json")
		}
		name, _, _ := strings.Cut(tag, ",")
		elem := f.Type
		if elem.Kind() == reflect.Pointer {
			elem = elem.Elem()
		}
		embedded := f.Anonymous && elem.Kind() == reflect.Struct
		if tag == "-" || !f.IsExported() && !embedded {
			continue
		}
		if embedded && name == "" {
			if !slices.Contains(above, elem) {
				if elem != f.Type {
					l.size += int(elem.Size())
				}
				l.addFields(elem, seen, depths, above)
			}
			continue
		}
		if name == "" {
			name = f.Name
		}
		field := layoutOf(f.Type, seen)
		l.order = append(l.order, field)
		if d, ok := depths[name]; !ok || len(above) < d {
			depths[name], l.names[name] = len(above), field
		}
	}
}

// pair returns what an entry of a map takes, in the map and beside it.
func (l *layout) pair() (slot, beside int) {
	if l.kind == reflect.Interface {
		return 2 * anySize, 0
	}
	for _, size := range []int{l.key.size, l.elem.size} {
		if size > maxDirect {
			slot, beside = slot+pointerSize, beside+size
		} else {
			slot += size
		}
	}
	return slot, beside
}

// field returns the layout of a struct's field; nil: there is none.
func (l *layout) field(name []byte) *layout {
	if f := l.names[string(name)]; f != nil {
		return f
	}
	for n, f := range l.names { // as the decoder does
		if strings.EqualFold(n, string(name)) {
			return f
		}
	}
	return nil
}

var errNotCBOR = errors.New("not one item of CBOR")

// decoderOf returns a function that decodes a message of a type, unless it would take too much. One
// that is too short to do so is decoded without a look. The type is looked at when the first comes,
// as most processes get few of the types that they know.
func decoderOf(t reflect.Type, mode cbor.DecMode) func(b []byte, v any) error {
	decode := sync.OnceValue(func() func([]byte, any) error { return newDecoder(t, mode) })
	return func(b []byte, v any) error { return decode()(b, v) }
}

func newDecoder(t reflect.Type, mode cbor.DecMode) func(b []byte, v any) error {
	seen := make(map[reflect.Type]*layout)
	l := layoutOf(t, seen)
	var slot, table, pointed int // together the most that one byte, an item at most, may take
	for _, l := range seen {
		switch l.kind {
		case reflect.Pointer:
			pointed += l.elem.size
		case reflect.Slice:
			slot = max(slot, l.elem.size)
		case reflect.Struct, reflect.Array, reflect.Invalid:
		default: // a map, or what may become one
			in, beside := l.pair()
			slot = max(slot, anySize)
			table = max(table, boxSize+mapSize+minSlots*in+beside)
		}
	}
	short := maxFootprint / max(1, slot+table+pointed)
	return func(b []byte, v any) error {
		if len(b) > short {
			budget := max(maxFootprint, footprintFactor*len(b))
			f := footprint{b: b, left: budget}
			f.item(l)
			if f.left < 0 {
				return fmt.Errorf("its %d bytes would take more than %d in memory", len(b), budget)
			}
			if f.bad || len(f.b) > 0 {
				return cmp.Or(mode.Wellformed(b), errNotCBOR)
			}
		}
		return mode.Unmarshal(b, v)
	}
}

// maxDepth bounds the items around one. The decoder counts neither the one in the middle nor the
// first tag of each.
const maxDepth = 2*maxNesting + 2

// footprint adds up what the decoder would allocate for a message, its strings apart.
type footprint struct {
	b     []byte // the rest
	left  int    // of the budget; below 0: it takes more
	depth int
	bad   bool // not well-formed, or nested too deep
}

const (
	null      = 0xf6
	undefined = 0xf7
	breakCode = 0xff
)

// stop reports whether there is nothing more to add up.
func (f *footprint) stop() bool { return f.bad || f.left < 0 }

// item adds the next item, of which the decoder makes a value with a layout, whose own size is
// counted; nil: it skips it.
func (f *footprint) item(l *layout) {
	for l != nil && l.kind == reflect.Pointer {
		if len(f.b) > 0 && (f.b[0] == null || f.b[0] == undefined) {
			break
		}
		l = l.elem
		f.left -= l.size
	}
	kind := reflect.Invalid
	if l != nil {
		kind = l.kind
	}
	if kind == reflect.Interface {
		f.left -= boxSize
	}
	major, n, endless := f.head()
	if f.depth++; f.depth > maxDepth {
		f.bad = true
	}
	if f.stop() {
		return
	}
	switch major {
	case majorBytes, majorText:
		f.text(major, n, endless)
	case majorTag:
		f.item(l)
	case majorArray:
		f.array(l, kind, n, endless)
	case majorMap:
		f.table(l, kind, n, endless)
	}
	f.depth--
}

func (f *footprint) array(l *layout, kind reflect.Kind, n uint64, endless bool) {
	var elem *layout
	slot := 0
	switch kind {
	case reflect.Slice:
		elem, slot = l.elem, l.elem.size
	case reflect.Array:
		elem = l.elem
	case reflect.Interface:
		elem, slot = anyLayout, anySize
	}
	for i := uint64(0); f.more(i, n, endless); i++ {
		f.left -= slot
		if kind == reflect.Struct {
			if elem = nil; i < uint64(len(l.order)) {
				elem = l.order[i]
			}
		}
		f.item(elem)
	}
}

func (f *footprint) table(l *layout, kind reflect.Kind, n uint64, endless bool) {
	var key, elem *layout
	slot, beside := 0, 0
	switch kind {
	case reflect.Map:
		key, elem = l.key, l.elem
		slot, beside = l.pair()
		f.left -= mapSize
	case reflect.Interface:
		key, elem = anyLayout, anyLayout
		slot, beside = anyLayout.pair()
		f.left -= mapSize
	}
	for i := uint64(0); f.more(i, n, endless); i++ {
		f.left -= beside
		switch {
		case i == 0:
			f.left -= minSlots * slot
		case i >= minSlots/slotsPerPair:
			f.left -= slotsPerPair * slot
		}
		if kind == reflect.Struct {
			elem = f.name(l)
		} else {
			f.item(key)
		}
		f.item(elem)
	}
}

// name takes the key of a struct's field.
func (f *footprint) name(l *layout) *layout {
	if len(f.b) == 0 {
		f.bad = true
		return nil
	}
	switch f.b[0] & 0xe0 {
	case majorText:
		major, n, endless := f.head()
		return l.field(f.text(major, n, endless))
	case majorUnsigned, majorNegative:
		major, n, _ := f.head()
		number := int64(n)
		if major == majorNegative {
			number = ^number
		}
		return l.field(strconv.AppendInt(nil, number, 10))
	}
	f.item(anyLayout) // no name; the decoder looks at it
	return nil
}

// more reports whether there is another element i of n, or before the break.
func (f *footprint) more(i, n uint64, endless bool) bool {
	switch {
	case f.stop():
		return false
	case !endless:
		return i < n
	case len(f.b) == 0:
		f.bad = true
		return false
	case f.b[0] == breakCode:
		f.b = f.b[1:]
		return false
	}
	return true
}

// text takes what follows the head of a string and returns it.
func (f *footprint) text(major byte, n uint64, endless bool) (s []byte) {
	if !endless {
		if n > uint64(len(f.b)) {
			f.bad = true
			return nil
		}
		s, f.b = f.b[:n], f.b[n:]
		return s
	}
	for f.more(0, 0, true) {
		chunk, n, endless := f.head()
		if f.bad || chunk != major || endless {
			f.bad = true
			return nil
		}
		s = append(s, f.text(major, n, false)...)
	}
	return s
}

// head takes the head of an item: see readHead.
func (f *footprint) head() (major byte, n uint64, endless bool) {
	major, n, endless, rest, ok := readHead(f.b)
	if f.b = rest; !ok {
		f.bad = true
	}
	return major, n, endless
}
