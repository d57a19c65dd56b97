package actors

import (
	"encoding/binary"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
)

type inner struct {
	Deep  int `cbor:"deep"`
	Maybe int `cbor:"maybe,omitempty"`
}

type shaped struct {
	inner
	Plain  string
	Tagged int `json:"tagged"`
	Left   any `cbor:"-"`
	One    inner
	Many   []inner
	Next   *shaped
	When   time.Time
	hidden int
}

func TestShape(t *testing.T) {
	s := typeFieldsOf(reflect.TypeOf(shaped{hidden: 1}))
	wantAll := []string{".Many", ".Many.deep", ".Many.maybe", ".Next", ".One", ".One.deep", ".One.maybe", ".Plain", ".When", ".deep", ".maybe", ".tagged"}
	if !slices.Equal(s.fields, wantAll) {
		t.Errorf("fields %v", s.fields)
	}
	// What stands in a list or behind a pointer may not be there at all.
	if want := []string{".Many", ".Next", ".One", ".One.deep", ".Plain", ".When", ".deep", ".tagged"}; !slices.Equal(s.always, want) {
		t.Errorf("always %v", s.always)
	}
}

// skewed are two versions of one type: the names say what the other has.
type skewedOld struct {
	A int
}

type skewedNew struct {
	A int
	B int
}

type skewedMild struct {
	A int
	C int `cbor:",omitempty"`
}

type skewedOther struct{ A string }

func body(t *testing.T, msg any, name string) []byte {
	t.Helper()
	b, err := encoding.Marshal(msg)
	if err != nil {
		t.Fatal(err)
	}
	return append(appendString([]byte{codecCBOR}, name), b...)
}

// The versioning rule, row by row, at the receiver.
func TestSkewAtTheReceiver(t *testing.T) {
	RegisterType[skewedOld]("test.skewed.old")
	RegisterType[skewedNew]("test.skewed.new")
	for name, row := range map[string]struct {
		sent any
		as   string
		want error
	}{
		"added, old sender":             {skewedOld{1}, "test.skewed.new", nil},
		"added, new sender":             {skewedNew{1, 2}, "test.skewed.old", ErrSkew},
		"added, omitempty, zero":        {skewedMild{1, 0}, "test.skewed.old", nil},
		"added, omitempty, set":         {skewedMild{1, 1}, "test.skewed.old", ErrSkew},
		"another type":                  {skewedOther{"x"}, "test.skewed.old", ErrSkew},
		"a type that is not here":       {skewedOld{1}, "test.skewed.nowhere", ErrType},
		"bytes that are nothing at all": {nil, "test.skewed.old", ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			b := body(t, row.sent, row.as)
			if row.sent == nil {
				b = append(appendString([]byte{codecCBOR}, row.as), 0xff)
			}
			if _, err := new(messageReader).read(b); !errors.Is(err, row.want) {
				t.Fatalf("error %v, want %v", err, row.want)
			}
		})
	}
}

// A peer says which types and fields it has; what it could not read fails here,
// before it leaves.
func TestSkewAtTheSender(t *testing.T) {
	RegisterType[skewedNew]("test.skewed.new")
	RegisterType[skewedMild]("test.skewed.mild")
	s := quietSystem(t, Config{Address: "0"})
	c := &sink{}
	if err := s.Attach("1", 0, c); err != nil {
		t.Fatal(err)
	}
	tell := func(types map[string][]string) {
		b := binary.AppendUvarint(appendPID(nil, ProcessPID("0")), uint64(len(types)))
		for name, fields := range types {
			b = binary.AppendUvarint(appendString(b, name), uint64(len(fields)))
			for _, f := range fields {
				b = appendString(b, f)
			}
		}
		s.HandleFrame("1", &fdipc.Frame{Kind: kindTypes, Lane: fdipc.Data, Payload: b})
	}
	tell(map[string][]string{"test.skewed.new": {".A"}, "test.skewed.mild": {".A"}})
	before := len(c.list())
	pid := actor.NewPID("1", "x")
	for _, row := range []struct {
		msg  any
		want error
	}{{skewedNew{1, 2}, ErrSkew}, {skewedMild{1, 0}, nil}, {"not known there", ErrType}, {skewedNew{1, 2}, ErrSkew}} {
		if err := s.Send(t.Context(), pid, row.msg); !errors.Is(err, row.want) {
			t.Errorf("%T: %v, want %v", row.msg, err, row.want)
		}
	}
	if _, err := s.Ask(t.Context(), pid, skewedNew{1, 2}); !errors.Is(err, ErrSkew) {
		t.Errorf("ask: %v", err)
	}
	if n := len(c.list()) - before; n != 1 {
		t.Errorf("%d messages left, want 1", n)
	}
	tell(map[string][]string{"test.skewed.new": {".A", ".B"}}) // registered late
	if err := s.Send(t.Context(), pid, skewedNew{1, 2}); err != nil {
		t.Error(err)
	}
	// Who runs the same program has the same bytes, and nothing is kept.
	s.HandleFrame("1", &fdipc.Frame{Kind: kindTypes, Lane: fdipc.Data, Payload: append(appendPID(nil, ProcessPID("0")), ownTypes()...)})
	if s.attached("1").readable.Load() != nil {
		t.Error("kept what is the same")
	}
	if st := s.Stats(); st.Malformed != 0 {
		t.Errorf("%+v", st)
	}
}
