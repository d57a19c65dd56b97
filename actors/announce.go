package actors

import (
	"maps"
	"slices"
	"sync"

	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// RegisterType lets messages of type T cross processes, under a name that both ends know. Call it
// from init or before the tree starts, in all processes alike. The type that was sent is the type
// that arrives: register the pointer type if pointers are sent.
//
//	actors.RegisterType[*SessionPut]("sessions.put")
//
// The encoding is CBOR of the exported fields, under their names or as json or cbor tags say.
// Between two versions of a program, a field that the sender does not have is zero at the receiver;
// one that the receiver does not have, or has with another type, is [ErrSkew], as nothing is
// dropped in silence. So teach the receivers first, or give the changed type a new name. A new
// field with omitempty that is zero is not sent and does no harm. Protobuf messages follow
// protobuf's rules and need not be registered. Strings, byte slices, bool, int, int64, uint64,
// float64, time.Time and time.Duration are registered.
//
// A slice or a map has at most 1,048,576 elements, nested at most 64 deep; a []byte or a string is
// bounded by the message alone. Decoded, a message may take 64 MiB of memory, or 16 times its
// length if that is more, by the sizes of its slices' elements, its maps' entries and what its
// pointers point to. What has more is [ErrMalformed].
//
// It panics, as gob.Register does, when the name or the type is registered otherwise, or when T is
// an interface, a function or a channel.
func RegisterType[T any](name string) {
	codec.Register[T](name)
	announceToAll()
}

// announcers are those, of the systems in this process, that have announced its types to a peer.
var announcers = struct {
	mu    sync.Mutex
	all   map[*peers]struct{}
	order sync.Mutex // held across a post, so that the last list that a peer gets is complete; taken before any other lock
}{all: make(map[*peers]struct{})}

// announceTypes sends a peer the types of this process.
func (ps *peers) announceTypes(p *peer) {
	announcers.mu.Lock()
	announcers.all[ps] = struct{}{}
	announcers.mu.Unlock()
	announcers.order.Lock()
	defer announcers.order.Unlock()
	p.post(ps.frame(wire.KindTypes, fdipc.Data), func(b []byte) []byte {
		return append(wire.AppendPID(b, ProcessPID(p.address)), codec.OwnTypes()...)
	})
}

// announceToAll sends all peers the types of this process, after one was registered late.
func announceToAll() {
	announcers.mu.Lock()
	all := slices.Collect(maps.Keys(announcers.all))
	announcers.mu.Unlock()
	for _, ps := range all {
		for _, p := range ps.all() {
			ps.announceTypes(p)
		}
	}
}
