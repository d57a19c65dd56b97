package fdipc

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

var rewrite = flag.Bool("rewrite", false, "write the files in testdata anew")

// sampleState has something in each field, and goes with so many descriptors.
func sampleState() (s *connState, files int) {
	l := newLane(&Conn{}, Data)
	hs := []*Handle{HandleFD(0).Named("queued")}
	l.putLocked(&Frame{Kind: 0x40, Payload: []byte("payload"), Handles: hs}, describe(l, hs, offerID{1, 9}))
	s = &connState{
		Format: stateFormat, Reads: stateReads, Ready: true, Goodbye: true, PeerGone: true,
		Credits: 8, MaxFrame: 1 << 20, SendLimit: 1 << 19, Seqs: []uint32{0, 9, 1 << 31}, Stalled: true, Beat: 3,
		Offers: []handleState{
			{File: 6, Slot: 1, Seq: 9, Kind: HandleTCP, Name: []byte("queued"), Accepted: []byte{1, 0}, Left: 5e8},
			{File: 7, Slot: 2, Seq: 1 << 31, Kind: HandleFile, Trace: TraceContext{1, 2, 3}, Sent: true},
		},
		Stats: Stats{FramesSent: 1, Offered: 2, Outstanding: 2, Held: 1},
	}
	s.Lanes[Data].Packets = [][]byte{l.queue[0].buf}
	s.Lanes[Control].Part = &partState{
		Kind: 0x41, Flags: 2, Target: 1 << 40, Trace: TraceContext{4}, Payload: []byte("half"),
		Handles: []handleState{{File: 5, Slot: 3, Seq: 4, Kind: HandlePipe, Name: []byte("held")}}, HandleCount: 1,
	}
	return s, 8
}

// The format of the state is what this file says, and what this version writes it reads.
func TestStateGolden(t *testing.T) {
	s, files := sampleState()
	b, err := cbor.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	text, err := cbor.Diagnose(b)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.ReplaceAll(text, `, "`, ",\n\"") + "\n"
	const file = "testdata/state.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != text {
		t.Errorf("%v; the state of a Conn is written otherwise: what reads %s must still be able to\n%s", err, file, text)
	}
	if _, err := decodeState(b, files); err != nil {
		t.Error(err)
	}
}

// A state of a later format is read if its writer says that it can be; fields that are not known
// are ignored.
func TestStateFormats(t *testing.T) {
	s, files := sampleState()
	for _, row := range []struct {
		format, reads int
		ok            bool
	}{{1, 1, true}, {2, 1, true}, {7, 0, true}, {2, 2, false}, {0, 0, false}} {
		s.Format, s.Reads = row.format, row.reads
		b, err := cbor.Marshal(struct {
			connState
			Later []string
		}{*s, []string{"x"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(b, files); (err == nil) != row.ok {
			t.Errorf("format %d, to be read from %d on: %v", row.format, row.reads, err)
		}
	}
}

// An error names the field.
func TestStateErrors(t *testing.T) {
	for _, row := range []struct {
		field string
		spoil func(s *connState)
	}{
		{"Credits is 0", func(s *connState) { s.Credits = 0 }},
		{"MaxFrame is -1", func(s *connState) { s.MaxFrame = -1 }},
		{"SendLimit is", func(s *connState) { s.SendLimit = 1 << 40 }},
		{"Seqs is 0", func(s *connState) { s.Seqs = nil }},
		{"Seqs is 9", func(s *connState) { s.Seqs = make([]uint32, 9) }},
		{"Offers.0.Slot is 7", func(s *connState) { s.Offers[0].Slot = 7 }},
		{"Offers.1.Slot is 1", func(s *connState) { s.Offers[1].Slot, s.Offers[1].Seq = 1, 9 }},
		{"Offers.0.Slot is 1", func(s *connState) { s.Offers[0].Seq = 8 }},
		{"Offers.1.File is 5", func(s *connState) { s.Offers[1].File = 5 }},
		{"Offers.0.Left is -1", func(s *connState) { s.Offers[0].Left = -1 }},
		{"Offers.0.Name is 256", func(s *connState) { s.Offers[0].Name = make([]byte, 256) }},
		{"Offers.0.Accepted is", func(s *connState) { s.Offers[0].Accepted = []byte{7} }},
		{"Lanes.control.Part.Payload is 4", func(s *connState) { s.MaxFrame = 3 }},
		{"Lanes.control.Part.HandleCount is 0", func(s *connState) { s.Lanes[Control].Part.HandleCount = 0 }},
		{"Lanes.control.Part.Handles.0.File is 9", func(s *connState) { s.Lanes[Control].Part.Handles[0].File = 9 }},
		{"Lanes.data.Packets.0 is 3", func(s *connState) { s.Lanes[Data].Packets[0] = []byte("xyz") }},
		{"Lanes.data.Packets.0: slot is 1", func(s *connState) { s.Seqs, s.Offers = s.Seqs[:1], nil }},
		{"number of descriptors is 8", func(s *connState) { s.Offers = s.Offers[:1] }},
	} {
		s, files := sampleState()
		row.spoil(s)
		b, err := cbor.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeState(b, files); err == nil || !strings.Contains(err.Error(), row.field) {
			t.Errorf("%v, want: %s", err, row.field)
		}
	}
	b, _ := cbor.Marshal(map[string]any{"Format": 1, "Reads": 1, "Credits": "many"})
	if _, err := decodeState(b, 8); err == nil || !strings.Contains(err.Error(), "Credits") {
		t.Error(err)
	}
}

// FuzzState: any bytes decode to a state that encodes to one that decodes to the same, or to an
// error.
func FuzzState(f *testing.F) {
	s, files := sampleState()
	b, _ := cbor.Marshal(s)
	f.Add(b, files)
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		x := slices.Clone(b)
		x[rnd.IntN(len(x))] = byte(rnd.Uint32())
		f.Add(x, files)
	}
	b, _ = cbor.Marshal(&connState{Format: 1, Credits: 1, MaxFrame: 1})
	f.Add(b, baseFiles)
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		s, err := decodeState(b, files)
		if err != nil {
			return
		}
		one, err := cbor.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeState(one, files)
		if err != nil {
			t.Fatal(err)
		}
		if two, _ := cbor.Marshal(again); !bytes.Equal(one, two) {
			t.Errorf("%x\n%x", one, two)
		}
	})
}
