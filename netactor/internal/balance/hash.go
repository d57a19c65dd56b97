package balance

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/coppice-go/coppice/netactor"
)

// hashRing is consistent hashing: each membership has ringPoints points on a circle, and a client
// belongs to the first point at or after its key. The points come from the worker's slot, so a
// replacement takes over the clients of the worker that it replaces. A membership without room is
// passed over: its client goes to the next point, and comes back later. After maxWalk such points
// the client goes to any worker that has room. O(log n).
//
// The hash has no secret: the circle must be the same after a restart of the listener process, and
// a client chooses only the worker that serves it.
type hashRing struct {
	l      *ListenerState
	key    netactor.KeyFunc // nil: by the client's IP address
	points []ringPoint
	free   roundRobin // the memberships that have room
}

type ringPoint struct {
	at uint64
	s  *Membership
}

const (
	ringPoints = 64
	maxWalk    = 64
)

func byPlace(a, b ringPoint) int {
	// In a reload two workers have one slot: the newer comes first.
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.s.Worker.Worker.ID, a.s.Worker.Worker.ID))
}

func (h *hashRing) join(m *Membership) {
	at := uint64(m.Worker.Worker.Slot)
	if m.Worker.Worker.Slot < 0 {
		at = ^m.Worker.Worker.ID
	}
	var own [ringPoints]ringPoint
	for i := range own {
		at = mix(at)
		own[i] = ringPoint{at, m}
	}
	slices.SortFunc(own[:], byPlace)
	// The points are merged from the end: sorting all again would take seconds for a thousand
	// workers.
	i, j := len(h.points)-1, ringPoints-1
	h.points = append(h.points, own[:]...)
	for k := len(h.points) - 1; j >= 0; k-- {
		if i >= 0 && byPlace(h.points[i], own[j]) > 0 {
			h.points[k] = h.points[i]
			i--
		} else {
			h.points[k] = own[j]
			j--
		}
	}
}

func (h *hashRing) leave(m *Membership) {
	h.points = slices.DeleteFunc(h.points, func(p ringPoint) bool { return p.s == m })
}

func (h *hashRing) update(m *Membership) { h.free.update(m) }

func (h *hashRing) pick(t *PendingConn) *Membership {
	if h.free.head == nil {
		return nil
	}
	at := mix(h.keyOf(t))
	from, _ := slices.BinarySearchFunc(h.points, at, func(p ringPoint, at uint64) int { return cmp.Compare(p.at, at) })
	for i, walked := 0, 0; i < len(h.points) && walked < maxWalk; i++ {
		p := h.points[(from+i)%len(h.points)]
		if p.s.room > 0 {
			return p.s
		}
		if !p.s.yields() {
			walked++
		}
	}
	return h.free.pick(t)
}

// keyOf returns the key that a connection is placed by.
func (h *hashRing) keyOf(t *PendingConn) (key uint64) {
	if t.Keyed {
		return t.Key
	}
	if h.key == nil {
		return addrKey(t.Peer.Addr())
	}
	defer func() {
		if p := recover(); p != nil {
			h.l.recordFault(p)
			key = addrKey(t.Peer.Addr())
		}
	}()
	return h.key(t.Peer, t.Local)
}

func addrKey(a netip.Addr) uint64 {
	ip := a.Unmap().As16()
	return mix(binary.BigEndian.Uint64(ip[:8])) ^ binary.BigEndian.Uint64(ip[8:])
}

// mix is the step of the SplitMix64 generator: a good hash of one word.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
