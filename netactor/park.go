package netactor

import (
	"fmt"
	"net"
	"time"
)

// Values of [Request].Park that are no duration.
const (
	ParkAtOnce time.Duration = -1 // after each answer
	ParkNever  time.Duration = -2
)

// ErrParked is wrapped by the errors of a [ParkableConn] that has left its worker.
// It is a net.ErrClosed, of which servers make no fuss.
var ErrParked = fmt.Errorf("netactor: the connection has gone back to the listener process: %w", net.ErrClosed)

// MinPark is the shortest duration of [Request].Park.
const MinPark = 10 * time.Millisecond

// ParkableConn is a connection that its worker can give back between two requests. The listener
// process parks it until its client sends the next one, and then offers it like a new connection:
// to whichever worker the policy chooses. Neither the client nor the next worker can tell, but by
// what the first worker remembered of the connection. The connections of a listener whose
// connections the listener process hands over are ParkableConns, until something else wraps them,
// as TLS does.
//
// A server takes part by Idle and Stay; [coppice.Worker.Serve] calls them for an *http.Server. The
// connection leaves only from within a Read whose buffer has as much room, by its capacity, as that
// of the first Read. A bufio.Reader has so much only when it holds nothing, so no byte of a request
// can be lost. That Read, and each later call, returns a *net.OpError that wraps [ErrParked]; the
// server then closes the connection as if its client had left.
type ParkableConn interface {
	net.Conn

	// Idle says that the server has answered all that it has read, and now reads the next request.
	// Call it before that Read, after each answer and for a new connection. A server that cannot
	// know whether it has read more sets a read deadline before it waits for the request, and
	// another one before it reads on: from the second call on the connection is busy. So do
	// net/http and fasthttp.
	Idle()

	// Parks reports whether the connection may go back: false after Stay, always for a listener
	// with ParkNever, and in a drain that no other worker outlives. A server that drains tells the
	// client of another connection to open a new one.
	Parks() bool

	// Stay says that the connection does not go back from now on: its protocol has changed, or the
	// worker remembers something of it. NetConn, SyscallConn and File say the same.
	Stay()
}

// checkPark returns what is wrong with Park, or an empty string.
func (r Request) checkPark() string {
	switch {
	case r.Park == 0, r.Park == ParkNever:
	case r.Park != ParkAtOnce && r.Park < MinPark:
		return "is less than " + MinPark.String()
	case !r.Policy.Dispatched() || r.packets():
		return "needs connections, and a policy that dispatches"
	case r.Peek.Proxy:
		return "conflicts with Peek.Proxy: only the first worker would see the header"
	}
	return ""
}

// Parks returns Park as it is in force.
func (r Request) Parks() time.Duration {
	if r.Peek.Proxy {
		return ParkNever
	}
	return r.Park
}
