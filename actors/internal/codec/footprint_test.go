package codec

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/fxamacker/cbor/v2"
)

type wideItem struct {
	A, B, C, D, E, F, G, H, I, J string
	K                            []string
	L                            time.Time
}

type linkItem struct {
	Next  *linkItem            `cbor:"next,omitempty"`
	Items []wideItem           `cbor:"items,omitempty"`
	Table map[string]*wideItem `cbor:"table,omitempty"`
	Any   any                  `cbor:"any,omitempty"`
	Short []wideItem           `cbor:"1,keyasint,omitempty"`
	wideEmbedded
}

type wideEmbedded struct{ Inner []wideItem }

type rowItem struct {
	_     struct{} `cbor:",toarray"`
	Name  string
	Items []wideItem
}

func init() {
	Register[[][]wideItem]("test.wide")
	Register[[]*wideItem]("test.pointers")
	Register[[]map[string]wideItem]("test.maps")
	Register[[][4]wideItem]("test.fixed")
	Register[*linkItem]("test.link")
	Register[[]rowItem]("test.rows")
	Register[[]any]("test.any")
	Register[cbor.Tag]("test.tag")
	Register[[]int]("test.ints")
	Register[[][]int]("test.lists")
	Register[map[string]int]("test.map")
	Register[[]wideItem]("test.items")
	Register[[]map[string]string]("test.labels")
}

// many is the CBOR of an array of arrays of n items in all.
func many(item string, n int) string {
	const each = 1 << 16
	s := string(appendHead(nil, majorArray, each)) + strings.Repeat(item, each)
	return string(appendHead(nil, majorArray, n/each)) + strings.Repeat(s, n/each)
}

// flat is the CBOR of an array of n items.
func flat(item string, n int) string {
	return string(appendHead(nil, majorArray, n)) + strings.Repeat(item, n)
}

func text(s string) string { return string(appendHead(nil, majorText, len(s))) + s }

// TestSmallFrameDoesNotGrow: a message of a few hundred KiB to 2 MiB that would be hundreds of
// MiB is refused, wherever in the type and in the encoding that comes from.
func TestSmallFrameDoesNotGrow(t *testing.T) {
	nulls := flat("\xf6", 1<<20-1)
	table := "\xa1" + text("x") + "\xa0"
	for _, row := range []struct{ name, typ, body string }{
		{"empty structs", "test.wide", many("\xa0", 1<<21)},
		{"nulls", "test.wide", many("\xf6", 1<<21)},
		{"endless arrays", "test.wide", "\x9f\x9f" + strings.Repeat("\xf6", 1<<20-1) + "\xff\xff"},
		{"tags", "test.wide", "\xd9\xd9\xf7\x81\xd9\xd9\xf7" + nulls},
		{"pointers", "test.pointers", flat("\xa0", 1<<20-1)},
		{"maps", "test.maps", flat(table, 1<<19)},
		{"arrays", "test.fixed", flat("\x80", 1<<19)},
		{"empty maps in any", "test.any", flat("\xa1\x00\x00", 1<<19)},
		{"lists in any", "test.any", "\x84" + strings.Repeat(flat("\x80", 1<<20-1), 4)},
		{"content of a tag", "test.tag", "\xc6" + many("\xa1\x00\x00", 1<<19)},
		{"field", "test.link", "\xa1" + text("items") + nulls},
		{"field in another case", "test.link", "\xa1" + text("ITEMS") + nulls},
		{"field with its name in pieces", "test.link", "\xa1\x7f" + text("it") + text("ems") + "\xff" + nulls},
		{"field with a number", "test.link", "\xa1\x01" + nulls},
		{"embedded field", "test.link", "\xa1" + text("Inner") + nulls},
		{"field of any type", "test.link", "\xa1" + text("any") + "\x84" + strings.Repeat(nulls, 4)},
		{"field deeper", "test.link", "\xa1" + text("next") + "\xbf" + text("next") + "\xa1" + text("items") + nulls + "\xff"},
		{"key that is no name", "test.link", "\xa1" + many("\xa1\x00\x00", 1<<19) + "\x00"},
		{"struct that is an array", "test.rows", "\x81\x82" + text("x") + nulls},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := append(wire.AppendString([]byte{codecCBOR}, row.typ), row.body...)
			_, err := new(MessageReader).Read(b)
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "in memory") {
				t.Fatalf("%d KiB: error %.200v", len(b)>>10, err)
			}
		})
	}
}

// TestLongMessagesCross: messages that are long because much is in them arrive, also such as
// are looked at before they are decoded.
func TestLongMessagesCross(t *testing.T) {
	item := wideItem{A: "a", B: "some text", J: "more", K: []string{"x", "y"}, L: time.Unix(1, 0).UTC()}
	table, anys, labels := make(map[string]int), make([]any, 100_000), make([]map[string]string, 100_000)
	for i := range 200_000 {
		table[strconv.Itoa(i)] = i
	}
	for i := range anys {
		anys[i] = []any{uint64(i), "text", map[any]any{"k": true}}
		labels[i] = map[string]string{"host": "a", "zone": "b"}
	}
	list := &linkItem{Any: "x", Short: make([]wideItem, 20_000)}
	for i := range 30 {
		list = &linkItem{Next: list, Items: []wideItem{item}, Table: map[string]*wideItem{strconv.Itoa(i): &item}}
	}
	for _, row := range []struct {
		name string
		msg  any
	}{
		{"small numbers", make([]int, 1<<20)},
		{"lists of small numbers", slicesOf(make([]int, 1<<18), 16)},
		{"map", table},
		{"structs", slicesOf(item, 50_000)},
		{"empty structs", make([]wideItem, 50_000)},
		{"rows", []rowItem{{Name: "x", Items: slicesOf(item, 20_000)}}},
		{"any", anys},
		{"small maps", labels},
		{"list", list},
	} {
		t.Run(row.name, func(t *testing.T) {
			b, err := new(MessageWriter).Append(nil, row.msg)
			if err != nil {
				t.Fatal(err)
			}
			msg, err := new(MessageReader).Read(b)
			if err != nil {
				t.Fatalf("%d KiB: %v", len(b)>>10, err)
			}
			if again, err := new(MessageWriter).Append(nil, msg); err != nil || len(again) != len(b) {
				t.Errorf("another message: %v", err)
			}
		})
	}
}

// TestLongMalformedMessages: a long message that is not well-formed gets the error that says so.
func TestLongMalformedMessages(t *testing.T) {
	head := wire.AppendString([]byte{codecCBOR}, "test.wide")
	for name, body := range map[string]string{
		"cut":             many("\xa0", 1<<17)[:1<<17],
		"more":            many("\xa0", 1<<17) + "\x00",
		"no end":          "\x9f" + strings.Repeat("\x80", 1<<19),
		"too deep":        strings.Repeat("\x81", 1<<19) + "\x80",
		"reserved":        strings.Repeat("\x9c", 1<<19),
		"break for value": "\x81\xff" + strings.Repeat("\x00", 1<<19),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := new(MessageReader).Read(append(bytes.Clone(head), body...))
			if !errors.Is(err, ErrMalformed) || strings.Contains(err.Error(), "in memory") {
				t.Errorf("error %.200v", err)
			}
		})
	}
}

func slicesOf[T any](v T, n int) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = v
	}
	return list
}

// One op is one message of 10,000 structs, which is looked at before it is decoded.
func BenchmarkDecodeLong(b *testing.B) { benchDecode(b, 10_000) }

// One op is one message of 100 structs.
func BenchmarkDecodeShort(b *testing.B) { benchDecode(b, 100) }

func benchDecode(b *testing.B, n int) {
	item := wideItem{A: "a", B: "some text", J: "more", K: []string{"x", "y"}, L: time.Unix(1, 0).UTC()}
	payload, err := new(MessageWriter).Append(nil, slicesOf(item, n))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	r := new(MessageReader)
	for b.Loop() {
		if _, err := r.Read(payload); err != nil {
			b.Fatal(err)
		}
	}
}

// FuzzFootprint: what the decoder takes for well-formed, the look before it does too.
func FuzzFootprint(f *testing.F) {
	for _, s := range []string{
		flat("\xa1\x61x\x01", 3), "\x9f\x7f\x61a\x60\xff\xbf\x20\xf6\xff\xff", "\xd9\xd9\xf7\xc6\x5f\x41x\xff",
		strings.Repeat("\x81", maxNesting) + "\x00", strings.Repeat("\xc6\x81", maxNesting) + "\xc6\x00", "\xfb12345678\x00", "\xf8\x20",
	} {
		f.Add([]byte(s))
	}
	layouts := []*layout{nil, anyLayout}
	for _, c := range registered().byName {
		layouts = append(layouts, layoutOf(c.typ, make(map[reflect.Type]*layout)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := decoding.Wellformed(b)
		for _, l := range layouts {
			look := footprint{b: b, left: math.MaxInt}
			if look.item(l); err == nil && (look.bad || len(look.b) > 0) {
				t.Fatalf("not well-formed, or %d bytes left", len(look.b))
			}
		}
	})
}
