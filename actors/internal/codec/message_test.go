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

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// FuzzMessage decodes the bytes that a peer calls a message. A message that decodes also encodes,
// except a time that a peer gives in seconds and whose year RFC 3339, our form, does not have.
func FuzzMessage(f *testing.F) {
	for _, m := range []any{
		"x", []byte("x"), []byte(nil), 1, int64(-1), uint64(1 << 63), 1.5, true,
		time.Second,
		time.Time{},
		time.Unix(1, 5),
		wrapperspb.String("x"), &actor.PID{Address: "a", Id: "b"},
	} {
		b, err := new(MessageWriter).Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := new(MessageReader).Read(b)
		if err != nil {
			if !errors.Is(err, ErrType) && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrSkew) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if at, ok := m.(time.Time); ok && (at.Year() < 0 || at.Year() > 9999) {
			return
		}
		again, err := new(MessageWriter).Append(nil, m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if _, err := new(MessageReader).Read(again); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
	})
}

// What is written and read without the CBOR library is what the library writes and reads.
func TestShortWaysAreCBOR(t *testing.T) {
	for _, m := range []any{
		0, 23, 24, 255, 256, -1, -24, -25, -256, -257, 1 << 16, int64(1 << 32), math.MaxInt, math.MinInt, int64(math.MaxInt64), int64(math.MinInt64), uint64(0), uint64(math.MaxUint64),
		"", "x", strings.Repeat("x", 300),
		[]byte{},
		[]byte{1},
		make([]byte, 300),
	} {
		b, err := new(MessageWriter).Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		want, err := encoding.Marshal(m)
		if body := b[len(b)-len(want):]; err != nil || !bytes.Equal(body, want) {
			t.Errorf("%T %v is %x, %v; want %x", m, m, b, err, want)
		}
		if got, err := new(MessageReader).Read(b); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%T %v came back as %T %v, %v", m, m, got, got, err)
		}
	}
	// Beyond the type, or another type: the library's errors.
	beyond := map[string][]string{
		"int":    {"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "\x41x", "\x61x", "\x01\x01", "\x18"},
		"int64":  {"\x1b\x80\x00\x00\x00\x00\x00\x00\x00", "\x3b\x80\x00\x00\x00\x00\x00\x00\x00"},
		"uint64": {"\x20", "\x3b\xff\xff\xff\xff\xff\xff\xff\xff"},
	}
	if strconv.IntSize == 32 {
		beyond["int"] = append(beyond["int"], "\x1a\x80\x00\x00\x00", "\x1b\x00\x00\x00\x01\x00\x00\x00\x05", "\x3b\x00\x00\x00\x01\x00\x00\x00\x05")
	}
	for head, bodies := range beyond {
		for _, body := range bodies {
			b := append(wire.AppendString([]byte{codecCBOR}, head), body...)
			if got, err := new(MessageReader).Read(b); err == nil {
				t.Errorf("%s %x is %v", head, body, got)
			}
		}
	}
}

type allocated struct {
	A, B int
	C    [100]byte
}

// A message is one allocation where it is read, its strings and slices apart, and none where it is
// written.
func TestMessageAllocations(t *testing.T) {
	Register[allocated]("test.allocated")
	for _, row := range []struct {
		msg  any
		read float64
	}{{1000, 1}, {[]byte("0123456789"), 2}, {"0123456789", 2}, {allocated{}, 1}} {
		var w MessageWriter
		var r MessageReader
		b := make([]byte, 0, 1024)
		if n := testing.AllocsPerRun(100, func() { b, _ = w.Append(b[:0], row.msg) }); n != 0 {
			t.Errorf("%T: %v allocations to write", row.msg, n)
		}
		if n := testing.AllocsPerRun(100, func() { _, _ = r.Read(b) }); n > row.read {
			t.Errorf("%T: %v allocations to read, want %v", row.msg, n, row.read)
		}
	}
}
