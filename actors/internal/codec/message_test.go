package codec

import (
	"errors"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
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
