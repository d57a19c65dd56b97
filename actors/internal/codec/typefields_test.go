package codec

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/internal/wire"
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
	if !slices.Equal(s.all, wantAll) {
		t.Errorf("fields %v", s.all)
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
	return append(wire.AppendString([]byte{codecCBOR}, name), b...)
}

// The versioning rule, row by row, at the receiver.
func TestSkewAtTheReceiver(t *testing.T) {
	Register[skewedOld]("test.skewed.old")
	Register[skewedNew]("test.skewed.new")
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
				b = append(wire.AppendString([]byte{codecCBOR}, row.as), 0xff)
			}
			if _, err := new(MessageReader).Read(b); !errors.Is(err, row.want) {
				t.Fatalf("error %v, want %v", err, row.want)
			}
		})
	}
}
