package fdipc

import "time"

// The fall-backs, for tests.
func WithoutTable(cfg Config) Config    { cfg.without |= featTable; return cfg }
func WithoutAccepted(cfg Config) Config { cfg.without |= featAccepted; return cfg }
func WithoutLane(cfg Config) Config     { cfg.without |= featData; return cfg }

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

// HelloWith is the first packet of a peer that sends one descriptor: n 0 its claim table, 1 its data lane.
func HelloWith(n int) []byte {
	b := make([]byte, pieceHead)
	b = appendEntry(b, &entry{})
	f := featTable << n
	h := hello{minVersion: version, maxVersion: version, knows: featAll, attached: f, maxFrame: 1 << 20, credits: 8}
	putPieceHeader(b, pieceHeader{n: helloLen, kind: kindHello, handles: 1})
	return h.append(b)
}

// Scribble does to the claim table what a hostile receiver can.
func Scribble(h *Handle) { h.table().store(h.ref.slot, word(h.ref.seq, 7, 99)) }
