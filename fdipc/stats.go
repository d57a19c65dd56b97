package fdipc

import "sync/atomic"

// Stats are counters of one side of a Conn since it began, and a few levels.
type Stats struct {
	FramesSent, FramesReceived   uint64
	PacketsSent, PacketsReceived uint64 // one system call each
	BytesSent, BytesReceived     uint64

	// Handles this side sent: Offered = Claimed + Refused + Returned + Outstanding.
	Offered, Claimed, Refused, Returned uint64
	Outstanding                         int    // offered, nothing heard yet
	Revoked                             uint64 // those of Returned that ran into their deadline
	Stalls                              uint64 // times the peer was found stalled
	Corrupt                             uint64 // words in the claim table that made no sense

	Held      int64  // received handles neither claimed nor refused
	Truncated uint64 // packets that lost descriptors because our table was full
	Full      uint64 // times TrySend answered ErrFull
	Retried   uint64 // times too many descriptors were in flight (ETOOMANYREFS)
}

type counters struct {
	framesSent, framesReceived, packetsSent, packetsReceived, bytesSent, bytesReceived atomic.Uint64
	offered, refused, returned, revoked, stalls, corrupt                               atomic.Uint64
	truncated, full, retried                                                           atomic.Uint64
}

// Stats returns the counters. They are read one by one while the Conn works.
func (c *Conn) Stats() Stats {
	s := &c.stats
	c.offers.mu.Lock()
	out, claimed := len(c.offers.live), c.offers.claimed
	c.offers.mu.Unlock()
	return Stats{
		FramesSent: s.framesSent.Load(), FramesReceived: s.framesReceived.Load(),
		PacketsSent: s.packetsSent.Load(), PacketsReceived: s.packetsReceived.Load(),
		BytesSent: s.bytesSent.Load(), BytesReceived: s.bytesReceived.Load(),
		Offered: s.offered.Load(), Claimed: claimed, Refused: s.refused.Load(), Returned: s.returned.Load(),
		Outstanding: out, Revoked: s.revoked.Load(), Stalls: s.stalls.Load(), Corrupt: s.corrupt.Load(),
		Held: c.held.Load(), Truncated: s.truncated.Load(), Full: s.full.Load(), Retried: s.retried.Load(),
	}
}
