package wire

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// ListenReply answers a Request.
type ListenReply struct {
	Number  uint64          // the listener's number, in later frames
	Name    string          `json:",omitzero"`
	Network string          // of the socket: tcp, udp, unix, unixpacket or unixgram
	Address string          // of the socket, as getsockname has it; a Unix path as asked
	Policy  netactor.Policy `json:",omitzero"`
	Park    time.Duration   `json:",omitzero"` // as Request.Park
	Paused  bool            `json:",omitzero"` // the worker must not accept for now, if it accepts for itself

	Options     netactor.SocketOptions `json:",omitzero"` // of connections, if the worker accepts for itself
	Credentials bool                   `json:",omitzero"` // get the credentials of each client, if the worker accepts for itself

	Denied string `json:",omitzero"` // what the worker asked for, if Errno is EACCES because of the rules

	Errno int    `json:",omitzero"` // not zero: the request failed, and the other fields are empty
	Call  string `json:",omitzero"` // the system call that failed, as in "bind"
}

// maxReason bounds the error text in a reply, in runes.
const maxReason = 1024

// Failed returns the reply that carries err.
func Failed(err error) ListenReply {
	r := ListenReply{Errno: int(syscall.EINVAL), Call: "listen"}
	errno, ok := errors.AsType[syscall.Errno](err)
	if _, call := errors.AsType[*os.SyscallError](err); call && ok { // with the text before it
		r.Call = fmt.Sprintf("%.*s", maxReason, strings.TrimSuffix(err.Error(), ": "+errno.Error()))
	}
	if ok && errno != 0 {
		r.Errno = int(errno)
	}
	return r
}

// Err returns the error that the reply carries, in the form of net.Listen, or nil. network and addr
// are those of the request.
func (r ListenReply) Err(network string, addr net.Addr) error {
	if r.Errno == 0 {
		return nil
	}
	if r.Denied != "" {
		what := r.Denied + ": "
		if addr != nil && !strings.Contains(r.Denied, " with ") {
			what = "" // the error names the address
		}
		return address.ListenError(network, addr, &listenDenied{what})
	}
	return address.ListenError(network, addr, os.NewSyscallError(r.Call, syscall.Errno(r.Errno)))
}

// Addr returns the address of an open socket.
func (r ListenReply) Addr() (net.Addr, error) { return address.Parse(r.Network, r.Address) }

// listenDenied is the error of a request that the rules do not allow.
type listenDenied struct{ what string }

func (e *listenDenied) Error() string {
	return fmt.Sprintf("%sneither a listener of the tree nor in Pool.Listen: %v", e.what, netactor.ErrListenDenied)
}

func (*listenDenied) Unwrap() []error { return []error{netactor.ErrListenDenied, syscall.EACCES} }
