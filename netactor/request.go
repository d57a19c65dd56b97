package netactor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Worker says which worker process is meant.
type Worker struct {
	ID          uint64 // never reused; 0 is the master
	Name        string // as "web/0"
	Pool        string // its pool's name, the owner of what it listens on
	Slot        int    // its place in the pool; -1 when it has none
	Generation  int    // the reload that it belongs to
	Incarnation int
}

// Request asks for a listening socket, or for one that takes datagrams. It is data: it is sent to the master,
// and compared there with what is open already.
//
// Two requests for the same socket share it. The first one's Backlog, Mode,
// Policy, Credentials, Options, Functions, Peek and Limits hold; those of the others are ignored, as
// Node's cluster does with the backlog.
type Request struct {
	// Name is what workers can ask for instead of an address. Empty is none.
	Name string `json:",omitzero"`

	// Network is "tcp", "tcp4", "tcp6", "unix" or "unixpacket"; of a packet socket "udp",
	// "udp4", "udp6" or "unixgram"; empty with FD or with Name
	// alone. "tcp" without a host, or with an unspecified one, is dual stack,
	// "tcp6" is IPv6 alone: the rules of net.Listen; and so for udp.
	Network string `json:",omitzero"`

	// Address is host:port, a path, or "@name" for an abstract Unix socket.
	// Port 0 is random for the first worker and then the same for all. As sent
	// to the master it is resolved: an IP address, an absolute path.
	Address string `json:",omitzero"`

	// FD is the number of a listening socket in the *master*, or of a bound packet socket. 0 is none, so
	// that descriptor 0 cannot be named.
	FD int `json:",omitzero"`

	// Packet says that what FD, or Name alone, means is a packet socket. It is set by [Listeners].
	Packet bool `json:",omitzero"`

	// Backlog is the length of the kernel's accept queue; 0 means the system's
	// maximum (somaxconn).
	Backlog int `json:",omitzero"`

	// Mode is the permission bits of a Unix path; 0 leaves them to the
	// master's umask.
	Mode fs.FileMode `json:",omitzero"`

	// Ordinal counts the listeners that one worker has on the same address:
	// the n-th Listen on port 0 gives every worker the same n-th port. It is set
	// by [Listeners].
	Ordinal int `json:",omitzero"`

	Policy Policy `json:",omitzero"`
	Limits Limits `json:",omitzero"`

	// Peek is what policy Hash looks at of a connection, besides its addresses.
	Peek Peek `json:",omitzero"`

	// Functions says where the process that accepts finds the user's functions for this
	// listener: see [DispatcherConfig]. Policy Custom needs one, and PeekFirst. Empty is none.
	Functions string `json:",omitzero"`

	// Credentials has the kernel asked for the process, user and group of each client as it is accepted. They
	// travel with the connection: see [PeerCredentials]. For Unix sockets of connections.
	Credentials bool `json:",omitzero"`

	// Options are set on the socket. FreeBind and Transparent conflict with FD.
	Options SocketOptions `json:",omitzero"`

	user *Functions // in the master, of what Table.Open opens, whose Control is called; nil without

	// joins says that the socket is a further member of a ReusePort listener.
	joins bool

	// Wait makes a request by name alone wait until there is one of that name. Else it is
	// ENOENT.
	Wait bool `json:",omitzero"`
}

// Bounds of what a request says, in bytes: they keep it within maxControl.
const (
	maxRequestName    = 255
	maxRequestAddress = 4096 // PATH_MAX
)

// validate returns every field that cannot be meant, joined. It is called by
// the worker before it asks, and by the master, which does not trust it.
func (r Request) validate() error {
	var errs []error
	bad := func(field string, value any, why string) {
		errs = append(errs, fmt.Errorf("netactor: %s %v: %s", field, value, why))
	}
	switch {
	case r.FD != 0 && (r.Network != "" || r.Address != ""):
		bad("FD", r.FD, "conflicts with Network and Address")
	case r.FD < 0:
		bad("FD", r.FD, "is negative")
	case r.FD != 0:
	case r.Network == "" && r.Address == "" && r.Name != "":
	case internet(r.Network):
	case local(r.Network):
		if r.Address == "" {
			bad("Address", `""`, "is empty")
		}
	default:
		errs = append(errs, net.UnknownNetworkError(r.Network))
	}
	if len(r.Name) > maxRequestName {
		bad("Name", fmt.Sprintf("of %d bytes", len(r.Name)), fmt.Sprintf("is longer than %d", maxRequestName))
	}
	if len(r.Address) > maxRequestAddress {
		bad("Address", fmt.Sprintf("of %d bytes", len(r.Address)), fmt.Sprintf("is longer than %d", maxRequestAddress))
	}
	if r.Backlog < 0 {
		bad("Backlog", r.Backlog, "is negative")
	}
	if r.Packet && r.Network != "" {
		bad("Packet", r.Packet, "goes with FD, or Name alone")
	}
	if r.packet() && r.Backlog != 0 {
		bad("Backlog", r.Backlog, "is of connections, and a packet socket has none")
	}
	if r.packet() && r.Peek != (Peek{}) {
		bad("Peek", fmt.Sprintf("%+v", r.Peek), "is of connections, and a packet socket has none")
	}
	if r.packet() && r.Policy == Custom {
		bad("Policy", r.Policy, "has a Picker, and a packet socket asks none")
	}
	if r.Mode&^fs.ModePerm != 0 || r.Mode != 0 && !local(r.Network) {
		bad("Mode", r.Mode, "is not the permissions of a Unix path")
	}
	if r.Ordinal < 0 {
		bad("Ordinal", r.Ordinal, "is negative")
	}
	if r.Policy >= policies {
		bad("Policy", r.Policy, "is not known")
	}
	if r.Policy == Custom && r.Functions == "" {
		bad("Functions", `""`, "is empty, and Policy custom needs a Picker")
	}
	if err := r.Options.Validate(); err != nil {
		bad("Options", fmt.Sprintf("%+v", r.Options), err.Error())
	}
	if local(r.Network) && r.Options != (SocketOptions{}) {
		bad("Options", fmt.Sprintf("%+v", r.Options), "are for TCP and UDP")
	}
	if r.Credentials && (internet(r.Network) || r.packet()) {
		bad("Credentials", r.Credentials, "are of the clients of a Unix socket of connections")
	}
	if r.FD != 0 && (r.Options.FreeBind || r.Options.Transparent) {
		bad("Options", fmt.Sprintf("%+v", r.Options), "FreeBind and Transparent conflict with FD, which is bound")
	}
	if err := r.Peek.Validate(); err != nil {
		bad("Peek", fmt.Sprintf("%+v", r.Peek), err.Error())
	}
	if r.Peek != (Peek{}) && r.Policy != Hash {
		bad("Peek", fmt.Sprintf("%+v", r.Peek), "goes with Policy hash alone")
	}
	if r.Peek.By == PeekFirst && r.Functions == "" {
		bad("Functions", `""`, "is empty, and Peek.By first needs a First")
	}
	if r.Policy == ReusePort && (r.FD != 0 || local(r.Network)) {
		errs = append(errs, os.NewSyscallError("setsockopt", syscall.EOPNOTSUPP)) // as Node: ENOTSUP
	}
	if err := r.Limits.Validate(); err != nil {
		bad("Limits", fmt.Sprintf("%+v", r.Limits), err.Error())
	}
	if r.Limits != (Limits{}) && (!r.Policy.dispatched() || r.packet()) {
		bad("Limits", fmt.Sprintf("%+v", r.Limits), "need connections, and a policy that dispatches")
	}
	if r.Wait && (r.Name == "" || r.Network != "" || r.FD != 0) {
		bad("Wait", r.Wait, "goes with Name alone")
	}
	return errors.Join(errs...)
}

// key is what makes two requests mean the same socket: Node's
// address:port:type:fd:index. r is resolved.
func (r Request) key() string {
	if r.FD != 0 {
		return fmt.Sprintf("fd:%d:%d", r.FD, r.Ordinal)
	}
	return fmt.Sprintf("%s:%s:%d", r.Network, r.Address, r.Ordinal)
}

// packet reports whether r asks for a packet socket.
func (r Request) packet() bool { return r.Packet || packet(r.Network) }

// port returns the port of a resolved TCP or UDP request, or -1.
func (r Request) port() int {
	if r.FD != 0 || !internet(r.Network) {
		return -1
	}
	ap, err := netip.ParseAddrPort(r.Address)
	if err != nil {
		return -1
	}
	return int(ap.Port())
}

// encode returns v as a payload. v is one of our own types: it always encodes.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("netactor: encode: " + err.Error())
	}
	return b
}

// decode reads a payload that a peer wrote into v.
func decode(b []byte, v any) error {
	if len(b) > maxControl {
		return fmt.Errorf("netactor: control payload of %d bytes is longer than %d", len(b), maxControl)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("netactor: control payload: %w", err)
	}
	return nil
}

// decodeStats reads the counts that the listener process sent. They may be
// longer than other control payloads: they grow with listeners and workers.
func decodeStats(b []byte, out *[]ListenerStats) error {
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("netactor: stats: %w", err)
	}
	return nil
}

// decodeRequest reads a Request from a worker. What comes back is resolved and
// valid.
func decodeRequest(b []byte) (Request, error) {
	var r Request
	if err := decode(b, &r); err != nil {
		return Request{}, err
	}
	if err := r.validate(); err != nil {
		return Request{}, err
	}
	if !r.resolved() {
		return Request{}, fmt.Errorf("netactor: address %q is not resolved", r.Address)
	}
	return r, nil
}

// resolved reports whether the address of r is written as resolve writes it, so that it means to
// the kernel what it means to whoever compares it.
func (r Request) resolved() bool {
	switch {
	case local(r.Network):
		return strings.HasPrefix(r.Address, "@") || cleanPath(r.Address)
	case internet(r.Network):
		ap, err := netip.ParseAddrPort(r.Address)
		if err != nil || ap.Addr().Is4In6() || len(ap.Addr().Zone()) > maxZone {
			return false
		}
		if ap.Addr().Is4() && strings.HasSuffix(r.Network, "6") || ap.Addr().Is6() && strings.HasSuffix(r.Network, "4") {
			return false
		}
		network, same := canonical(r.Network, ap)
		return network == r.Network && same == ap
	}
	return true
}

// maxZone is the length of an interface's name, less the final zero (IFNAMSIZ).
const maxZone = 15

// cleanPath reports whether a path is absolute, and there is no shorter one that means the same.
func cleanPath(path string) bool {
	return strings.HasPrefix(path, "/") && path == filepath.Clean(path) && !strings.ContainsRune(path, 0)
}

// reply answers a Request.
type reply struct {
	Number  uint64 // the listener's, in further frames
	Name    string `json:",omitzero"`
	Network string // of the socket: tcp, udp, unix, unixpacket or unixgram
	Address string // of the socket, as getsockname has it; a Unix path as asked
	Policy  Policy `json:",omitzero"`
	Paused  bool   `json:",omitzero"` // the worker is not to accept for now, if it accepts itself

	Options     SocketOptions `json:",omitzero"` // of connections, if it accepts itself
	Credentials bool          `json:",omitzero"` // of clients are to be asked for, if it accepts itself

	Denied string `json:",omitzero"` // what was asked for, where the rules are why Errno is EACCES

	Errno int    `json:",omitzero"` // not zero: it failed, and the rest is empty
	Call  string `json:",omitzero"` // the system call that failed, as "bind"
}

// maxReason bounds what a reply says of an error, in runes.
const maxReason = 1024

// failed returns the reply that carries err.
func failed(err error) reply {
	r := reply{Errno: int(syscall.EINVAL), Call: "listen"}
	errno, ok := errors.AsType[syscall.Errno](err)
	if _, call := errors.AsType[*os.SyscallError](err); call && ok { // with what stands before it
		r.Call = fmt.Sprintf("%.*s", maxReason, strings.TrimSuffix(err.Error(), ": "+errno.Error()))
	}
	if ok && errno != 0 {
		r.Errno = int(errno)
	}
	return r
}

// err returns the error that the reply carries, in the form that net.Listen
// gives it, or nil. network and addr are as asked.
func (r reply) err(network string, addr net.Addr) error {
	if r.Errno == 0 {
		return nil
	}
	if r.Denied != "" {
		what := r.Denied + ": "
		if addr != nil && !strings.Contains(r.Denied, " with ") {
			what = "" // the address says it
		}
		return listenError(network, addr, &listenDenied{what})
	}
	return listenError(network, addr, os.NewSyscallError(r.Call, syscall.Errno(r.Errno)))
}

// listenError is the form of every error of a Listen: that of net.Listen.
func listenError(network string, addr net.Addr, err error) error {
	return &net.OpError{Op: "listen", Net: network, Addr: addr, Err: err}
}

// addr returns the address of an open socket.
func (r reply) addr() (net.Addr, error) { return parseAddr(r.Network, r.Address) }

// parseAddr makes a net.Addr from a resolved address.
func parseAddr(network, address string) (net.Addr, error) {
	if local(network) {
		return &net.UnixAddr{Net: network, Name: address}, nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fmt.Errorf("netactor: %s address: %w", network, err)
	}
	if packet(network) {
		return net.UDPAddrFromAddrPort(ap), nil
	}
	return net.TCPAddrFromAddrPort(ap), nil
}

// opening tells the listener process about a socket to accept on.
type opening struct {
	Name    string // for people: the listener's name or its address
	Network string `json:",omitzero"` // tcp, unix or unixpacket
	Pool    string `json:",omitzero"`
	Policy  Policy `json:",omitzero"`
	Limits  Limits `json:",omitzero"`
	Paused  bool   `json:",omitzero"`

	Peek        Peek   `json:",omitzero"`
	Functions   string `json:",omitzero"`
	Credentials bool   `json:",omitzero"` // of clients are to be told
	Foreign     bool   `json:",omitzero"` // others than this tree may have the socket
	Renew       bool   `json:",omitzero"` // it takes the place of one that was shut down
}
