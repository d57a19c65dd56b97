package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// ListenReply answers a Request.
type ListenReply struct {
	Number  uint64          // the listener's, in further frames
	Name    string          `json:",omitzero"`
	Network string          // of the socket: tcp, udp, unix, unixpacket or unixgram
	Address string          // of the socket, as getsockname has it; a Unix path as asked
	Policy  netactor.Policy `json:",omitzero"`
	Paused  bool            `json:",omitzero"` // the worker is not to accept for now, if it accepts itself

	Options     netactor.SocketOptions `json:",omitzero"` // of connections, if it accepts itself
	Credentials bool                   `json:",omitzero"` // of clients are to be asked for, if it accepts itself

	Denied string `json:",omitzero"` // what was asked for, where the rules are why Errno is EACCES

	Errno int    `json:",omitzero"` // not zero: it failed, and the rest is empty
	Call  string `json:",omitzero"` // the system call that failed, as "bind"
}

// maxReason bounds what a reply says of an error, in runes.
const maxReason = 1024

// Failed returns the reply that carries err.
func Failed(err error) ListenReply {
	r := ListenReply{Errno: int(syscall.EINVAL), Call: "listen"}
	errno, ok := errors.AsType[syscall.Errno](err)
	if _, call := errors.AsType[*os.SyscallError](err); call && ok { // with what stands before it
		r.Call = fmt.Sprintf("%.*s", maxReason, strings.TrimSuffix(err.Error(), ": "+errno.Error()))
	}
	if ok && errno != 0 {
		r.Errno = int(errno)
	}
	return r
}

// Err returns the error that the reply carries, in the form that net.Listen
// gives it, or nil. network and addr are as asked.
func (r ListenReply) Err(network string, addr net.Addr) error {
	if r.Errno == 0 {
		return nil
	}
	if r.Denied != "" {
		what := r.Denied + ": "
		if addr != nil && !strings.Contains(r.Denied, " with ") {
			what = "" // the address says it
		}
		return address.ListenError(network, addr, &listenDenied{what})
	}
	return address.ListenError(network, addr, os.NewSyscallError(r.Call, syscall.Errno(r.Errno)))
}

// Addr returns the address of an open socket.
func (r ListenReply) Addr() (net.Addr, error) { return address.Parse(r.Network, r.Address) }

// listenDenied is what a worker is told.
type listenDenied struct{ what string }

func (e *listenDenied) Error() string {
	return fmt.Sprintf("%sneither a listener of the tree nor in Pool.Listen: %v", e.what, netactor.ErrListenDenied)
}

func (*listenDenied) Unwrap() []error { return []error{netactor.ErrListenDenied, syscall.EACCES} }
