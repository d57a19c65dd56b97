package actors

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// newer and milder are versions of one type of which the peer has an older one.
type newer struct {
	A int
	B int
}

type milder struct {
	A int
	C int `cbor:",omitempty"`
}

// A peer says which types and fields it has; what it could not read fails here,
// before it leaves.
func TestSkewAtTheSender(t *testing.T) {
	RegisterType[newer]("test.skewed.new")
	RegisterType[milder]("test.skewed.mild")
	s := quietSystem(t, Config{Address: "0"})
	c := &sink{}
	if err := s.Attach("1", 0, c); err != nil {
		t.Fatal(err)
	}
	tell := func(types map[string][]string) {
		b := binary.AppendUvarint(wire.AppendPID(nil, ProcessPID("0")), uint64(len(types)))
		for name, fields := range types {
			b = binary.AppendUvarint(wire.AppendString(b, name), uint64(len(fields)))
			for _, f := range fields {
				b = wire.AppendString(b, f)
			}
		}
		s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindTypes, Lane: fdipc.Data, Payload: b})
	}
	tell(map[string][]string{"test.skewed.new": {".A"}, "test.skewed.mild": {".A"}})
	before := len(c.list())
	pid := actor.NewPID("1", "x")
	for _, row := range []struct {
		msg  any
		want error
	}{{newer{1, 2}, ErrSkew}, {milder{1, 0}, nil}, {"not known there", ErrType}, {newer{1, 2}, ErrSkew}} {
		if err := s.Send(t.Context(), pid, row.msg); !errors.Is(err, row.want) {
			t.Errorf("%T: %v, want %v", row.msg, err, row.want)
		}
	}
	if _, err := s.Ask(t.Context(), pid, newer{1, 2}); !errors.Is(err, ErrSkew) {
		t.Errorf("ask: %v", err)
	}
	if n := len(c.list()) - before; n != 1 {
		t.Errorf("%d messages left, want 1", n)
	}
	tell(map[string][]string{"test.skewed.new": {".A", ".B"}}) // registered late
	if err := s.Send(t.Context(), pid, newer{1, 2}); err != nil {
		t.Error(err)
	}
	// Who runs the same program has the same bytes, and nothing is kept.
	s.HandleFrame("1", &fdipc.Frame{Kind: wire.KindTypes, Lane: fdipc.Data, Payload: append(wire.AppendPID(nil, ProcessPID("0")), codec.OwnTypes()...)})
	if s.peers.find("1").readable.Load() != nil {
		t.Error("kept what is the same")
	}
	if st := s.Stats(); st.Malformed != 0 {
		t.Errorf("%+v", st)
	}
}
