package fdipc

import (
	"math/bits"
	"time"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

// WithoutTick has a sender hear of answers only when its peer says so.
func WithoutTick(cfg Config) Config { cfg.tick = time.Hour; return cfg }

// RaceEnabled: the race detector is on.
const RaceEnabled = raceEnabled

// HelloOf is the first packet of a peer that speaks these versions.
func HelloOf(low, high uint16) []byte {
	b := make([]byte, pieceHead)
	putPieceHeader(b, pieceHeader{n: helloLen, kind: kindHello})
	return hello{minVersion: low, maxVersion: high}.append(b)
}

// HelloWith is the first packet of a peer that knows and attaches these features: bit 0 its claim
// table, bit 1 its data lane, bit 2 what was known at accept.
func HelloWith(knows, attached uint32) []byte {
	n := bits.OnesCount32(attached)
	b := make([]byte, pieceHead)
	for range n {
		b = appendEntry(b, &handleEntry{})
	}
	h := hello{minVersion: version, maxVersion: version, knows: features(knows), attached: features(attached), maxFrame: 1 << 20, credits: 8}
	putPieceHeader(b, pieceHeader{n: helloLen, kind: kindHello, handles: n})
	return h.append(b)
}

// Scribble does to the claim table what a hostile receiver can.
func Scribble(h *Handle) { h.from.peer.Store(h.ref.slot, claims.Word(h.ref.seq, 7, 99)) }
