package netactor

import (
	"net/netip"
	"syscall"
)

// Functions are what a user adds to a policy. They are never sent: the process that accepts looks
// up its own, see dispatch.Config. They run in that process, Picker and Key under the dispatcher's
// lock. They must be quick, must not block, and must not call the dispatcher. A function that
// panics is counted and reported, and the connection is placed without it.
type Functions struct {
	Picker Picker    // of policy Custom
	Key    KeyFunc   // of policy Hash; nil: the client's IP address
	First  FirstFunc // of policy Hash with Peek.By PeekFirst

	// PoisonKey names what a connection asks for, by its first bytes, so that what kills workers is
	// found and refused: see dispatch.Dispatcher.Guard. It is for each policy that dispatches. A
	// connection waits for its key for at most Peek.Timeout, so the client must speak first; one
	// that has none by then is not judged. PoisonAnswer is what a refused connection gets before it
	// is closed, at most 4096 bytes.
	PoisonKey    PoisonKeyFunc
	PoisonAnswer string

	// Control is called in the master, and not where connections are accepted: see registry.Config.
	Control ControlFunc
}

// KeyFunc returns the key by which Hash places a connection. Connections with equal keys go to one
// worker, while it has room. peer is the client's address and local the address that it connected
// to; both are the zero value for a Unix socket.
type KeyFunc func(peer, local netip.AddrPort) uint64

// Picker chooses a worker for one connection. A Picker is used by one goroutine at a
// time, but possibly for several listeners.
type Picker interface {
	// Pick returns an index into free, which is never empty, has no order, and is borrowed until
	// Pick returns. peer is the client's address; the zero value for a Unix socket. An index out of
	// range counts as a fault, and the worker picked the longest ago gets the connection.
	Pick(peer netip.AddrPort, free []Load) int
}

// Load is what a Picker sees of a worker that has room.
type Load struct {
	Worker   Worker
	Offered  int // connections offered to it and not yet claimed, of this listener
	Open     int // connections it has claimed and not yet closed, of this listener
	Reported int // the load that it last reported, over all listeners; None if it reported none
	Room     int // connections it may be offered now
}

// FirstFunc makes a key of the first bytes of a connection, at most 8,192. It borrows the bytes
// until it returns. It is called again with all bytes when more have come. It is called for the
// last time when no more come, or when there are too many; then [PeekMore] counts as [PeekUnkeyed].
// Two goroutines may call it at once. A FirstFunc that panics is counted and reported, and the
// connection is placed by its default.
type FirstFunc func(first []byte) (key uint64, v PeekVerdict)

// PoisonKeyFunc is a [FirstFunc] whose key is a text, of which 216 bytes count less the listener's
// name; of a longer one the end is replaced by a hash. "" is no key.
type PoisonKeyFunc func(first []byte) (key string, v PeekVerdict)

// PeekVerdict is the result of a FirstFunc for the bytes that have come.
type PeekVerdict uint8

const (
	PeekMore    PeekVerdict = iota // the next bytes decide
	PeekKeyed                      // the key is found
	PeekUnkeyed                    // there is no key, whatever bytes follow
)

// ControlFunc changes a listening socket before it is bound, as in net.ListenConfig. A socket that
// comes from outside (Request.FD) is changed as it is. network and address are those of the
// request, resolved. The master calls it each time that it opens a socket of the listener: for each
// socket of its group with policy ReusePort, and again when it replaces a broken socket. It applies
// only to the listeners of registry.Table.Open: a worker's request never calls it. It runs on any
// goroutine that works for the Table, and the Table waits for it: it must not block. The Listen
// fails with its error, or with its panic.
type ControlFunc func(network, address string, c syscall.RawConn) error
