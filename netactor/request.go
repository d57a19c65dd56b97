package netactor

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/netactor/internal/address"
)

// None is the Slot of a worker that has none, and the [Load] that a worker has not reported.
const None = -1

// Worker identifies a worker process.
type Worker struct {
	ID          uint64 // never reused; 0 is the master
	Name        string // as "web/0"
	Pool        string // its pool's name: the owner of its sockets
	Slot        int    // its place in the pool, or None
	Generation  int    // the number of the reload that it belongs to
	Incarnation int

	// Beside is set in a pool whose generations serve beside each other: those before the newest
	// get new connections too.
	Beside bool `json:",omitzero"`

	// Alone is set for a worker that gets no connection but the one that it is to try: see
	// dispatch.Guarded.
	Alone bool `json:",omitzero"`
}

// Request asks for a listening socket, or for a packet socket. It is data: the worker sends it to
// the master, which compares it with the sockets that are open.
//
// Two requests for the same socket share it. The Backlog, Mode, Policy, Credentials, Options,
// Functions, Peek and Limits of the first request hold; those of later requests are ignored, as
// Node's cluster ignores the backlog.
type Request struct {
	// Name is what workers can ask for in place of an address. Empty is no name.
	Name string `json:",omitzero"`

	// Network is "tcp", "tcp4", "tcp6", "unix" or "unixpacket"; for a packet socket "udp", "udp4",
	// "udp6" or "unixgram"; empty with FD or with Name alone. "tcp" without a host, or with an
	// unspecified host, is dual stack, and "tcp6" is IPv6 alone, as in net.Listen; the same holds
	// for udp.
	Network string `json:",omitzero"`

	// Address is host:port, a path, or "@name" for an abstract Unix socket. Port 0 is random for
	// the first worker and then the same for all that give the same Name; without a Name, for all
	// of the pool. In a request to the master the address is
	// resolved: an IP address, an absolute path.
	Address string `json:",omitzero"`

	// FD is the number of a listening socket in the *master*, or of a bound packet socket. 0 is
	// none, so descriptor 0 cannot be named.
	FD int `json:",omitzero"`

	// Packet means that FD, or Name alone, names a packet socket. listen.Listeners sets it.
	Packet bool `json:",omitzero"`

	// Backlog is the length of the kernel's accept queue; 0 means the system's maximum (somaxconn).
	Backlog int `json:",omitzero"`

	// Mode is the permission bits of a Unix path; 0 leaves them to the master's umask.
	Mode fs.FileMode `json:",omitzero"`

	// Ordinal counts the listeners that one worker has on the same address: the n-th Listen on port
	// 0 gives every worker the same n-th port. listen.Listeners sets it.
	Ordinal int `json:",omitzero"`

	Policy Policy `json:",omitzero"`
	Limits Limits `json:",omitzero"`

	// Peek is what policy Hash looks at besides the addresses of a connection.
	Peek Peek `json:",omitzero"`

	// Functions is the name by which the process that accepts finds the user's functions for this
	// listener: see dispatch.Config. Policy Custom and PeekFirst need it. Empty is none.
	Functions string `json:",omitzero"`

	// Credentials makes the listener ask the kernel for the process, user and group of each client
	// when it accepts. They travel with the connection: see [PeerCredentials]. It is for Unix
	// sockets of connections.
	Credentials bool `json:",omitzero"`

	// Park is when a connection between two requests goes back to the listener process, which parks
	// it; see [ParkableConn]. 0 is when its worker drains because another has taken its place. A
	// duration is the same, and also when it has been idle for so long; [ParkAtOnce] after each
	// answer; [ParkNever] never.
	Park time.Duration `json:",omitzero"`

	// Options are set on the socket. FreeBind and Transparent conflict with FD.
	Options SocketOptions `json:",omitzero"`

	// Wait makes a request by name alone wait until a socket has that name. Without Wait the
	// request fails with ENOENT.
	Wait bool `json:",omitzero"`
}

// Bounds of the strings of a request, in bytes: they keep it within the bound of a control frame.
const (
	maxRequestName    = 255
	maxRequestAddress = 4096 // PATH_MAX
)

// FieldError is the error of a field of a [Request] that is not valid.
type FieldError struct {
	Field string
	Value any
	Why   string
	Err   error // the same as Why for callers that check it: a syscall.Errno, or net.UnknownNetworkError
}

// Error returns the text of Err, or the field, its value and Why.
func (e *FieldError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("netactor: %s %v: %s", e.Field, e.Value, e.Why)
}

// Unwrap returns Err.
func (e *FieldError) Unwrap() error { return e.Err }

// Validate returns an error that joins a [FieldError] for each field that is not valid, or nil. The
// worker calls it before it sends the request, and the master because it does not trust the worker.
func (r Request) Validate() error {
	var errs []error
	for _, e := range r.Problems() {
		errs = append(errs, e)
	}
	return errors.Join(errs...)
}

// Problems returns the errors that Validate joins.
func (r Request) Problems() (errs []*FieldError) {
	bad := func(field string, value any, why string) {
		errs = append(errs, &FieldError{Field: field, Value: value, Why: why})
	}
	r.checkAddress(bad, &errs)
	r.checkPolicy(bad, &errs)
	if err := r.Options.validate(); err != nil {
		bad("Options", fmt.Sprintf("%+v", r.Options), err.Error())
	} else if r.Options != (SocketOptions{}) && address.IsLocal(r.Network) {
		bad("Options", fmt.Sprintf("%+v", r.Options), "are for TCP and UDP")
	} else if r.FD > 0 && (r.Options.FreeBind || r.Options.Transparent) {
		bad("Options", fmt.Sprintf("%+v", r.Options), "FreeBind and Transparent conflict with FD, which is bound")
	}
	if err := r.Limits.Validate(); err != nil {
		bad("Limits", fmt.Sprintf("%+v", r.Limits), err.Error())
	} else if r.Limits != (Limits{}) && (!r.Policy.Dispatched() || r.packets()) {
		bad("Limits", fmt.Sprintf("%+v", r.Limits), "need connections, and a policy that dispatches")
	}
	if why := r.checkPark(); why != "" {
		bad("Park", r.Park, why)
	}
	if r.Credentials && (address.IsInternet(r.Network) || r.packets()) {
		bad("Credentials", r.Credentials, "are of the clients of a Unix socket of connections")
	}
	if r.packets() {
		r.checkPacketSocket(bad)
	}
	return errs
}

func (r Request) checkAddress(bad func(field string, value any, why string), errs *[]*FieldError) {
	switch {
	case r.FD < 0:
		bad("FD", r.FD, "is negative")
	case r.FD > 0 && (r.Network != "" || r.Address != ""):
		bad("FD", r.FD, "conflicts with Network and Address")
	case r.FD > 0:
	case r.Network == "" && r.Address == "" && r.Name != "":
	case address.IsInternet(r.Network):
	case address.IsLocal(r.Network):
		if r.Address == "" {
			bad("Address", `""`, "is empty, and a Unix socket needs a path")
		}
	default:
		*errs = append(*errs, &FieldError{
			Field: "Network", Value: fmt.Sprintf("%q", r.Network), Err: net.UnknownNetworkError(r.Network),
			Why: "is none of tcp, tcp4, tcp6, unix, unixpacket, udp, udp4, udp6, unixgram",
		})
	}
	if len(r.Name) > maxRequestName {
		bad("Name", fmt.Sprintf("of %d bytes", len(r.Name)), fmt.Sprintf("is longer than %d", maxRequestName))
	}
	if len(r.Address) > maxRequestAddress {
		bad("Address", fmt.Sprintf("of %d bytes", len(r.Address)), fmt.Sprintf("is longer than %d", maxRequestAddress))
	}
	if r.Packet && r.Network != "" {
		bad("Packet", r.Packet, "goes with FD, or Name alone")
	}
	if r.Backlog < 0 {
		bad("Backlog", r.Backlog, "is negative")
	}
	if r.Mode&^fs.ModePerm != 0 || r.Mode != 0 && !address.IsLocal(r.Network) {
		bad("Mode", r.Mode, "is not the permission bits of a Unix path")
	}
	if r.Ordinal < 0 {
		bad("Ordinal", r.Ordinal, "is negative")
	}
	if r.Wait && (r.Name == "" || r.Network != "" || r.FD != 0) {
		bad("Wait", r.Wait, "goes with Name alone")
	}
}

func (r Request) checkPolicy(bad func(field string, value any, why string), errs *[]*FieldError) {
	if r.Policy >= Policies {
		bad("Policy", r.Policy, "is none of round-robin, least-loaded, hash, custom, shared, reuseport")
	}
	if r.Policy == ReusePort && (r.FD != 0 || address.IsLocal(r.Network)) { // as Node: ENOTSUP
		*errs = append(*errs, &FieldError{
			Field: "Policy", Value: r.Policy, Err: os.NewSyscallError("setsockopt", syscall.EOPNOTSUPP),
			Why: "is for TCP and UDP sockets that are opened by their address",
		})
	}
	if r.Policy == Custom && r.Functions == "" {
		bad("Functions", `""`, "is empty, and Policy custom needs a Picker")
	}
	if err := r.Peek.Validate(); err != nil {
		bad("Peek", fmt.Sprintf("%+v", r.Peek), err.Error())
	} else if r.Peek != (Peek{}) && r.Policy != Hash {
		bad("Peek", fmt.Sprintf("%+v", r.Peek), "goes with Policy hash alone")
	}
	if r.Peek.By == PeekFirst && r.Functions == "" {
		bad("Functions", `""`, "is empty, and Peek.By first needs a First")
	}
}

func (r Request) checkPacketSocket(bad func(field string, value any, why string)) {
	if r.Policy == Custom {
		bad("Policy", r.Policy, "has a Picker, and a packet socket asks none")
	}
	if r.Peek != (Peek{}) {
		bad("Peek", fmt.Sprintf("%+v", r.Peek), "is of connections, and a packet socket has none")
	}
	if r.Backlog > 0 {
		bad("Backlog", r.Backlog, "is of connections, and a packet socket has none")
	}
}

// packets reports whether r asks for a packet socket.
func (r Request) packets() bool { return r.Packet || address.IsPacket(r.Network) }
