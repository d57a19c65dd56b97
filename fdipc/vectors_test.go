package fdipc

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

// The test vectors of docs/protocol.md are what the encoder writes, and the decoder takes them.
func TestVectors(t *testing.T) {
	doc, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	vectors := make(map[string][]byte)
	for i, block := range strings.Split(string(doc), "```") {
		name, body, ok := strings.Cut(block, "\n")
		if name, is := strings.CutPrefix(name, "vector "); i%2 == 1 && ok && is {
			if vectors[name], err = hex.DecodeString(strings.Join(strings.Fields(body), "")); err != nil {
				t.Fatal(name, err)
			}
		}
	}
	frame := func(lane Lane, f *Frame, refs ...offerID) []byte {
		c := &Conn{}
		l := newLane(c, lane)
		l.putLocked(f, describe(l, f.Handles, refs...))
		return l.queue[0].buf
	}
	var trace TraceContext
	for i := range trace {
		trace[i] = byte(i + 1)
	}
	named := HandleFD(0).Named("c")
	named.kind = HandleTCP
	tcp := HandleFD(0).SetAccepted(Accepted{Remote: netip.MustParseAddrPort("192.0.2.1:258"), Local: netip.MustParseAddrPort("[2001:db8::1]:80")})
	unix := HandleFD(0).SetAccepted(Accepted{LocalName: "/s", Credentials: &Credentials{PID: 7, UID: 8, GID: 9}})
	hi := hello{1, 1, featAll, featAttached, 1 << 20, 256}.append(nil)
	attached := appendEntry(appendEntry(nil, &handleEntry{}), &handleEntry{})
	head := make([]byte, pieceHead)
	putPieceHeader(head, pieceHeader{n: len(hi), kind: kindHello, handles: 2})
	want := map[string][]byte{
		"hello":    slices.Concat(head, attached, hi),
		"frame":    frame(Control, &Frame{Kind: 0x40, Flags: 5, Target: 7, Payload: []byte("hi")}),
		"handles":  frame(Data, &Frame{Kind: 0x41, Trace: trace, Handles: []*Handle{named, HandleFD(0)}}, offerID{3, 9}, offerID{4, 1}),
		"accepted": frame(Data, &Frame{Kind: 0x41, Handles: []*Handle{tcp, unix}}, offerID{3, 9}, offerID{4, 1}),
	}
	for name, b := range want {
		if !bytes.Equal(vectors[name], b) {
			t.Errorf("%s:\n%x in the document,\n%x from the encoder", name, vectors[name], b)
		}
		var p piece
		if rest, err := decodePiece(b, &p); err != nil || len(rest) != 0 {
			t.Errorf("%s: %v, %d bytes left", name, err, len(rest))
		}
	}
	if len(vectors) != len(want) {
		t.Errorf("%d vectors in the document, %d here", len(vectors), len(want))
	}
}
