package actors

import (
	"maps"
	"slices"
	"sync"

	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// RegisterType lets messages of type T cross processes, under a name that both
// ends know. Call it from init or before the tree starts, in all processes alike. The type that was
// sent is the type that arrives: register the pointer type if pointers are sent.
//
//	actors.RegisterType[*SessionPut]("sessions.put")
//
// The encoding is CBOR of the exported fields, under their names or as json or
// cbor tags say. Between two versions of a program, a field that the sender does
// not have is zero at the receiver; one that the receiver does not have, or has
// with another type, is [ErrSkew], as nothing is dropped in silence. So teach the
// receivers first, or give the changed type a new name. A new field with omitempty that
// is zero is not sent and does no harm. Protobuf messages follow protobuf's rules and need not be
// registered. Strings, byte slices, bool, int, int64, uint64, float64, time.Time
// and time.Duration are registered.
//
// A slice or a map has at most 1,048,576 elements, nested at most 64 deep; a []byte or a
// string is bounded by the message alone. Decoded, a message may take 64 MiB of memory, or 16
// times its length if that is more, by the sizes of its slices' elements, its maps' entries and
// what its pointers point to. What has more is [ErrMalformed].
//
// It panics, as gob.Register does, when the name or the type is registered
// otherwise, or when T is an interface, a function or a channel.
func RegisterType[T any](name string) {
	codec.Register[T](name)
	announceToAll()
}

// announcers are the systems of this process that have announced its types to peers.
var announcers struct {
	mu      sync.Mutex
	systems map[*System]struct{}

	order sync.Mutex // held across a post: the last that a peer is told is all; before any other lock
}

// announceTypes sends a peer the types of this process.
func (s *System) announceTypes(p *peer) {
	announcers.mu.Lock()
	if announcers.systems == nil {
		announcers.systems = make(map[*System]struct{})
	}
	announcers.systems[s] = struct{}{}
	announcers.mu.Unlock()
	announcers.order.Lock()
	defer announcers.order.Unlock()
	p.post(s.frame(wire.KindTypes, fdipc.Data), func(b []byte) []byte {
		return append(wire.AppendPID(b, ProcessPID(p.address)), codec.OwnTypes()...)
	})
}

// announceToAll sends all peers the types of this process, after one was registered late.
func announceToAll() {
	announcers.mu.Lock()
	systems := slices.Collect(maps.Keys(announcers.systems))
	announcers.mu.Unlock()
	for _, s := range systems {
		s.mu.RLock()
		peers := slices.Collect(maps.Values(s.peers))
		s.mu.RUnlock()
		for _, p := range peers {
			s.announceTypes(p)
		}
	}
}

func (s *System) stopAnnouncing() {
	announcers.mu.Lock()
	delete(announcers.systems, s)
	announcers.mu.Unlock()
}

// onTypes takes the list of a peer's types.
func (s *System) onTypes(p *peer, r *wire.Reader) {
	pt := codec.ReadPeerTypes(r)
	if r.Bad {
		s.countMalformed(p, wire.KindTypes)
		return
	}
	p.readable.Store(pt)
}

// canRead returns why the peer could not read msg, as far as this process knows.
func (p *peer) canRead(msg any) error {
	if pt := p.readable.Load(); pt != nil {
		return pt.Check(msg, p.address)
	}
	return nil
}
