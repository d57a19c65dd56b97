package coppice

import (
	"fmt"
	"io/fs"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
)

// A ListenerSpec describes a socket that the master holds: a listening socket, or a packet socket
// if its network has datagrams. As a child of the tree it lives as long as its supervisor keeps it,
// whatever happens to the workers, which get it by [Worker.Listener] or [Worker.PacketConn]. Given
// to [Worker.ListenSpec] or [Worker.ListenPacketSpec], it is opened for the first worker that asks,
// and shared with the workers that ask for the same.
type ListenerSpec struct {
	Name    string // "" = network:address
	Network string // tcp, tcp4, tcp6, unix, unixpacket; or udp, udp4, udp6, unixgram
	Address string // as for net.Listen

	// FD, when above 0, names a listening socket or a bound packet socket by its number in the
	// master (N96, N13); Network and Address must then be empty.
	FD int

	// SystemdName names a socket that systemd opened and passed to the program, by its
	// FileDescriptorName= (systemd.socket(5)); "http:1" is the second socket of that name. Only a
	// ListenerSpec in the tree may have it. Network and Address may be set too: they are used when
	// the program was started without sockets.
	SystemdName string

	// Policy chooses the worker for a connection; RoundRobin by default. A packet socket is shared
	// under each policy except ReusePort.
	Policy  Policy
	Backlog int           // of the kernel; 0 = net.core.somaxconn
	Mode    fs.FileMode   // permission bits of a Unix path; 0 = the master's umask decides
	Options SocketOptions // keep-alive, buffers and the like
	Limits  Limits        // how many connections, and what happens to further ones; for policies that hand over

	// Peek is what Hash reads of a connection besides its addresses: a TLS server name, a cookie,
	// the first bytes, a PROXY header.
	Peek Peek

	// Park is when a connection between two requests goes back to the listener process, to be
	// offered anew when its client sends the next request: 0 = when its worker drains because others
	// take its place, so that a reload closes no idle connection; a duration, of at least 10 ms =
	// also when it has been idle for so long; [ParkAtOnce] = after each answer; [ParkNever] = never.
	// A parked connection outlives a crash of the worker that had it, and its next request goes to
	// whichever worker Policy chooses: so requests are balanced, not connections. But a crash of the
	// listener process closes those that are parked. It needs [Worker.Serve] with an *http.Server,
	// or a server that takes part by [ParkableConn]; connections over TLS and HTTP/2 stay.
	Park time.Duration

	// Credentials reads the process, user and group of each client of a Unix socket when it is
	// accepted; in the worker [PeerCredentials] returns them.
	Credentials bool

	// Hooks are the user's functions for a policy: Picker with Custom, Key and First with Hash; and
	// PoisonKey, with each policy that hands over, whose keys Pool.Poison judges.
	// They run in the listener process, which has them from its own copy of the tree, so only a
	// ListenerSpec in the tree may have Hooks. Control runs in the master, each time that a socket
	// of the ListenerSpec is opened, and must not block.
	Hooks ListenerHooks
}

// Values of ListenerSpec.Park that are no duration.
const (
	ParkAtOnce = netactor.ParkAtOnce
	ParkNever  = netactor.ParkNever
)

// ParkableConn is a connection that a server other than http's gives back between two requests, by
// its methods Idle and Stay; see [netactor.ParkableConn].
type ParkableConn = netactor.ParkableConn

// ListenRules limit what the workers of a pool may ask the master to listen on, besides the
// listeners of the tree. Its fields:
//
//	Any   bool         // anything that the master may; conflicts with the others
//	None  bool         // nothing more; conflicts with the others
//	Allow []ListenRule // and what one of these allows
type ListenRules = netactor.ListenRules

// ListenRule allows some sockets: {Network: "tcp", Address: "127.0.0.1", Ports: "0,8000-8099"}. Its
// fields:
//
//	Network string // as for net.Listen, net.ListenPacket; tcp includes tcp4 and tcp6, udp likewise
//	Address string // an IP address or range; a path, or with / at the end all below; "" = every one
//	Ports   string // numbers and ranges; "" = every port
//	FD      int    // a descriptor of the master's; the rest is then empty
type ListenRule = netactor.ListenRule

// ErrListenDenied is wrapped, beside EACCES, by the error of a Listen, ListenSpec, ListenPacket or
// Share that neither a ListenerSpec of the tree nor [Pool.Listen] allows.
var ErrListenDenied = netactor.ErrListenDenied

// Limits bounds the connections that a listener hands to workers. Its fields:
//
//	PerWorker int     // connections a worker may have, offered and open; 0 = no limit
//	Total     int     // the same over all workers; 0 = no limit
//	Window    int     // unclaimed connections a worker may be offered; 0 = 32, at most 1024
//	AtLimit   AtLimit // what happens at a limit: WaitAtLimit, CloseAtLimit, AnswerAtLimit
//	Answer    string  // what AnswerAtLimit writes, at most 4096 bytes
type Limits = netactor.Limits

// What happens to a connection at a limit.
const (
	WaitAtLimit   = netactor.WaitAtLimit   // it waits in the kernel's backlog
	CloseAtLimit  = netactor.CloseAtLimit  // it is accepted and closed
	AnswerAtLimit = netactor.AnswerAtLimit // it gets Limits.Answer, and is closed
)

// ListenerHooks are the user's functions for a listener. They must be quick and must not block. Its
// fields:
//
//	Picker  Picker      // of Custom: Pick(peer netip.AddrPort, free []Load) int
//	Key     KeyFunc     // of Hash: func(peer, local netip.AddrPort) uint64; nil = the client's IP
//	First   FirstFunc   // of Hash with PeekFirst: func(first []byte) (key uint64, v PeekVerdict)
//	PoisonKey    PoisonKeyFunc // names by the first bytes what may kill workers: func(first []byte) (key string, v PeekVerdict)
//	PoisonAnswer string        // what a connection with a key that has killed gets before it is closed
//	Control ControlFunc // in the master, before the socket is bound: as in net.ListenConfig
type ListenerHooks = netactor.Functions

// Peek is what Hash reads of a connection before it chooses a worker. Its fields:
//
//	By      PeekBy        // PeekSNI, PeekCookie, PeekBytes, PeekFirst; 0 = address or Hooks.Key
//	Cookie  string        // the name of the cookie, for PeekCookie
//	Bytes   int           // how many bytes PeekBytes compares, 1 to 8192
//	Proxy   bool          // connections begin with a PROXY header, whose addresses count
//	Timeout time.Duration // how long Hash waits for enough bytes; 0 = 1 s, at most 1 min
type Peek = netactor.Peek

// SocketOptions are options of a listening socket and, where marked (c), of its connections. Its
// fields:
//
//	KeepAliveIdle     time.Duration // (c) silence before the first probe; 0 = 15 s, None = off
//	KeepAliveInterval time.Duration // (c) between two probes; 0 = 15 s
//	KeepAliveCount    int           // (c) probes without an answer that end it; 0 = 9
//	Delay             bool          // (c) leave Nagle's algorithm on
//	ReceiveBuffer     int           // (c) SO_RCVBUF in bytes; 0 = the kernel's choice
//	SendBuffer        int           // (c) SO_SNDBUF in bytes; 0 = the kernel's choice
//	DeferAccept       time.Duration // TCP_DEFER_ACCEPT; 0 = off
//	FastOpen          int           // TCP_FASTOPEN; 0 = off
//	FreeBind          bool          // IP_FREEBIND
//	Transparent       bool          // IP_TRANSPARENT
type SocketOptions = netactor.SocketOptions

// What Hash makes a key of.
const (
	PeekSNI    = netactor.PeekSNI    // the server name of a TLS ClientHello
	PeekCookie = netactor.PeekCookie // the value of the cookie Peek.Cookie in the first HTTP/1 request
	PeekBytes  = netactor.PeekBytes  // the first Peek.Bytes bytes
	PeekFirst  = netactor.PeekFirst  // the key that Hooks.First returns
)

// PeekVerdict is what Hooks.First returns for the first bytes: PeekMore, PeekKeyed or PeekUnkeyed.
type PeekVerdict = netactor.PeekVerdict

// The verdicts.
const (
	PeekMore    = netactor.PeekMore    // it depends on further bytes
	PeekKeyed   = netactor.PeekKeyed   // the key is found
	PeekUnkeyed = netactor.PeekUnkeyed // there is no key, whatever follows
)

// Credentials are those of the process at the other end of a Unix socket: PID, UID and GID, each an
// int.
type Credentials = fdipc.Credentials

// PeerCredentials returns the credentials that the client of a connection had when the connection
// was accepted from a [ListenerSpec] with Credentials. c may also be a *tls.Conn over such a
// connection, or another type with a NetConn method.
func PeerCredentials(c net.Conn) (who Credentials, ok bool) { return netactor.PeerCredentials(c) }

// TCPConn returns the *net.TCPConn under a connection that a worker has accepted, for code that
// wants that type, under every policy. c may also be a *tls.Conn over such a connection, or another
// type with a NetConn method. The *net.TCPConn stays c's, and c is what is to be closed: see
// [netactor.TCPConn].
func TCPConn(c net.Conn) (*net.TCPConn, error) { return netactor.TCPConn(c) }

// Load is what a Picker gets of a worker that has room. Its fields:
//
//	Worker   netactor.Worker // which one: ID, Name, Pool, Slot, Generation, Incarnation
//	Offered  int             // connections of this listener offered to it and not yet claimed
//	Open     int             // connections of this listener that it has
//	Reported int             // what it reported by Worker.ReportLoad; None = nothing
//	Room     int             // connections it may be offered now
type Load = netactor.Load

// Policy chooses which worker gets a connection: RoundRobin, LeastLoaded, Hash, Custom, Shared or
// ReusePort. Package netactor describes what each guarantees.
type Policy = netactor.Policy

// The policies.
const (
	RoundRobin  = netactor.RoundRobin  // a listener process accepts and hands over in turn
	LeastLoaded = netactor.LeastLoaded // it hands over to the worker with the fewest connections, or the least reported load
	Hash        = netactor.Hash        // it hands all connections of a client address, or with the same Hooks.Key, to one worker
	Custom      = netactor.Custom      // it asks Hooks.Picker
	Shared      = netactor.Shared      // every worker accepts on the one socket
	ReusePort   = netactor.ReusePort   // every worker accepts on a separate socket; the kernel spreads the connections
)

// ParsePolicy returns the policy named s, as [Policy.String] spells it.
func ParsePolicy(s string) (Policy, error) { return netactor.ParsePolicy(s) }

// validate checks what can be known without opening a socket: the rules of [netactor.Request], and
// those of the fields that only a spec has.
func (l ListenerSpec) validate(bad reportInvalid, path string) {
	r := l.request()
	if l.Network == "" && l.Address == "" && l.FD == 0 {
		r.Name = "systemd's" // systemd knows the address
		if l.SystemdName == "" {
			bad(path, "Network", `""`, "is none of tcp, tcp4, tcp6, unix, unixpacket, udp, udp4, udp6, unixgram")
		}
	}
	for _, p := range r.Problems() {
		// A missing Hook is reported below. A policy that a kind of socket does not support is
		// reported when the socket is opened, with Node's errno.
		if p.Field != "Functions" && (p.Field != "Policy" || p.Err == nil) {
			bad(path, p.Field, p.Value, p.Why)
		}
	}
	if (l.Policy == Custom) != (l.Hooks.Picker != nil) {
		bad(path, "Hooks.Picker", l.Hooks.Picker, "goes with Policy custom, and only with it")
	}
	if l.Hooks.Key != nil && l.Policy != Hash {
		bad(path, "Hooks.Key", "func", "goes with Policy hash alone")
	}
	if l.Hooks.Key != nil && l.packet() {
		bad(path, "Hooks.Key", "func", "is of connections, and a packet socket has none")
	}
	if (l.Peek.By == PeekFirst) != (l.Hooks.First != nil) {
		bad(path, "Hooks.First", "func", "goes with Peek.By first, and only with it")
	}
	if l.Hooks.PoisonKey != nil && (l.packet() || !l.Policy.Dispatched()) {
		bad(path, "Hooks.PoisonKey", "func", "needs connections, and a policy that hands over")
	}
	if a := l.Hooks.PoisonAnswer; a != "" && (l.Hooks.PoisonKey == nil || (Limits{Total: 1, AtLimit: AnswerAtLimit, Answer: a}).Validate() != nil) {
		bad(path, "Hooks.PoisonAnswer", fmt.Sprintf("of %d bytes", len(a)), "goes with Hooks.PoisonKey, and has at most 4096 bytes")
	}
	if l.SystemdName != "" && l.FD > 0 {
		bad(path, "SystemdName", l.SystemdName, "stands beside an FD")
	}
	if strings.HasPrefix(l.Network, "tcp") || strings.HasPrefix(l.Network, "udp") {
		if _, _, err := net.SplitHostPort(l.Address); err != nil {
			bad(path, "Address", fmt.Sprintf("%q", l.Address), err.Error())
		}
	}
}

// packet reports whether l is a packet socket by its Network.
func (l ListenerSpec) packet() bool {
	switch l.Network {
	case "udp", "udp4", "udp6", "unixgram":
		return true
	}
	return false
}

// request returns what l asks netactor for.
func (l ListenerSpec) request() netactor.Request {
	return netactor.Request{
		Name: l.Name, Network: l.Network, Address: l.Address, FD: l.FD,
		Policy: l.Policy, Peek: l.Peek, Backlog: l.Backlog, Mode: l.Mode, Credentials: l.Credentials, Park: l.Park, Options: l.Options, Limits: l.Limits,
	}
}

// hasFunctions reports whether l has functions, which cannot be sent.
func (l ListenerSpec) hasFunctions() bool { return !reflect.ValueOf(l.Hooks).IsZero() }
