package netactor

import (
	"net/netip"
	"syscall"
)

// Functions are what a user adds to a policy. They are never sent: the process that
// accepts finds its own, see [DispatcherConfig]. They run there, Picker and Key under the dispatcher's
// lock: they must be quick, must not block, and must not call the dispatcher. One
// that panics is counted and reported, and the connection is placed without it.
type Functions struct {
	Picker Picker    // of policy Custom
	Key    KeyFunc   // of policy Hash; nil: the client's IP address
	First  FirstFunc // of policy Hash with Peek.By PeekFirst

	// Control is called in the master, and not where connections are accepted: see [TableConfig].
	Control ControlFunc
}

// KeyFunc says what Hash places a connection by: those with equal keys go to one
// worker, while it has room. peer is the client's address and local the one it
// connected to; both are the zero value for a Unix socket.
type KeyFunc func(peer, local netip.AddrPort) uint64

// Picker chooses a worker for one connection. A Picker is used by one goroutine at a
// time, but possibly for several listeners.
type Picker interface {
	// Pick returns an index into free, which is never empty, is in no order, and is borrowed
	// until Pick returns. peer is the client's address; the zero value for a
	// Unix socket. An index out of range counts as a fault, and is taken for whoever was
	// picked the longest ago.
	Pick(peer netip.AddrPort, free []Load) int
}

// Load is what a Picker sees of a worker that has room.
type Load struct {
	Worker   Worker
	Offered  int // connections offered to it and not yet claimed, of this listener
	Open     int // connections it has claimed and not yet closed, of this listener
	Reported int // its own word on its load, of all it does; -1 when it gave none
	Room     int // connections it may be offered now
}

// FirstFunc makes a key of the first bytes of a connection, at most 8,192, which it borrows
// until it returns. It is called again, with all of them, when more have come; and for the
// last time when no more come, or too many have: then [PeekMore] counts as [PeekUnkeyed].
// It may be called by two goroutines at once. One that panics is counted and reported, and the
// connection is placed by its default.
type FirstFunc func(first []byte) (key uint64, v PeekVerdict)

// PeekVerdict is what a FirstFunc makes of what there is.
type PeekVerdict uint8

const (
	PeekMore    PeekVerdict = iota // it depends on what comes next
	PeekKeyed                      // the key is found
	PeekUnkeyed                    // there is none, whatever comes next
)

// ControlFunc changes a listening socket before it is bound, as in net.ListenConfig; one that comes from
// outside (Request.FD) as it is. network and address are as asked for, resolved. It is called in the
// master, each time that a socket of the listener is opened: for each socket of its group with policy ReusePort, and
// again where a broken one is replaced. It is for the listeners of [Table.Open] alone: what a worker asks for never
// calls it. It runs on whichever goroutine works for the Table, which does nothing
// else meanwhile: it must not block. Its error is that of the Listen, and so is a panic.
type ControlFunc func(network, address string, c syscall.RawConn) error
