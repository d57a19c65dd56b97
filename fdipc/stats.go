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

// list returns each counter and its field in s.
func (n *counters) list(s *Stats) []countedField {
	return []countedField{
		{&n.framesSent, &s.FramesSent},
		{&n.framesReceived, &s.FramesReceived},
		{&n.packetsSent, &s.PacketsSent},
		{&n.packetsReceived, &s.PacketsReceived},
		{&n.bytesSent, &s.BytesSent},
		{&n.bytesReceived, &s.BytesReceived},
		{&n.offered, &s.Offered},
		{&n.refused, &s.Refused},
		{&n.returned, &s.Returned},
		{&n.revoked, &s.Revoked},
		{&n.stalls, &s.Stalls},
		{&n.corrupt, &s.Corrupt},
		{&n.truncated, &s.Truncated},
		{&n.full, &s.Full},
		{&n.retried, &s.Retried},
	}
}

type countedField struct {
	counter *atomic.Uint64
	field   *uint64
}

// Stats returns the counters. They are read one by one while the Conn works.
func (c *Conn) Stats() Stats {
	var s Stats
	c.offers.mu.Lock()
	s.Outstanding, s.Claimed = len(c.offers.live), c.offers.claimed
	c.offers.mu.Unlock()
	for _, n := range c.stats.list(&s) {
		*n.field = n.counter.Load()
	}
	s.Held = c.held.Load()
	return s
}
