package registry

import (
	"net/netip"
	"syscall"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

type phase uint8

const (
	pending phase = iota
	open
	closing
)

type socketState struct {
	number     uint64
	req        socket.SocketSpec
	phase      phase
	awaitsPort bool   // pending: waits for a closing socket to free the port
	freedPorts uint64 // pending: as it was when the opening began
	paused     bool
	fromWorker bool   // a worker opened it
	ofTree     bool   // it is the tree's own, though a worker asked first
	firstOwner string // the owner that asked first
	waiting    []pendingRequest
	keys       []string // its key, and the alias of the port it got
	owners     map[string]*ownership
	addr       wire.ListenReply // open: what every asker is told

	group      []*groupSocket // ReusePort: the sockets behind the one name
	lastMember int            // index of the newest of them
}

// boundAddress is the address that was asked for, with the port that it got.
func (s *socketState) boundAddress() string {
	asked, err := netip.ParseAddrPort(s.req.Address)
	got, e := netip.ParseAddrPort(s.addr.Address)
	if err != nil || e != nil {
		return s.addr.Address
	}
	return netip.AddrPortFrom(asked.Addr(), got.Port()).String()
}

// ownership is what one pool, or one spec, has in a socket.
type ownership struct {
	spec            bool
	holders         map[uint64]uint64 // live workers that have it, by which request of theirs
	shutDown        map[uint64]bool   // those of them whose copy somebody has shut down: they may ask again
	vacancies       int               // workers that died with it, not yet replaced
	firstGeneration int               // the generation that asked first; 0: a spec, or one that is gone
	lastGeneration  int               // the newest that asked
}

// has reports whether a worker has it open.
func (o *ownership) has(worker uint64) bool {
	_, ok := o.holders[worker]
	return ok && !o.shutDown[worker]
}

// leave takes a worker out; false when it was not there.
func (o *ownership) leave(worker uint64) bool {
	_, ok := o.holders[worker]
	delete(o.holders, worker)
	delete(o.shutDown, worker)
	return ok
}

// ended reports whether nobody is left, nor to come.
func (o *ownership) ended() bool { return !o.spec && len(o.holders) == 0 && o.vacancies == 0 }

// pendingRequest is one waiting request.
type pendingRequest struct {
	worker uint64 // 0: a listener spec, owner
	owner  string
	seq    uint64 // the worker's number for its request; for a spec, the driver's
	req    socket.SocketSpec
	socket *socket.Bound         // a socket that the worker sent; owned by whoever holds the ask
	rules  *netactor.ListenRules // of the worker's pool; nil: anything
}

// effect is one thing to do. The driver does them in the order given, and tells
// the state about the outcome of an open before it does the next, but for a Unix
// socket: of that it tells in its own time.
type effect struct {
	kind       effectKind
	number     uint64
	req        socket.SocketSpec // doOpen
	socket     *socket.Bound     // doOpen, doOpened, doReopened, doDiscard
	old        *heldSocket       // doReopened: in place of which given is
	request    pendingRequest    // doReply
	reply      wire.ListenReply  // doReply, doOpened, doReopened
	worker     uint64            // doTell, doRenew
	renew      bool              // doPublish: in place of the one it has
	groupIndex int               // doReply, doRenew, doRetire, doReopened: which socket of a ReusePort listener
	tries      int               // the driver's: how often it has failed for want of something
}

type effectKind uint8

const (
	doOpen     effectKind = iota // open the socket of req, or take given; then call opened
	doOpened                     // take the outcome of a doOpen; then call opened
	doReopened                   // the driver's: take the outcome of opening a socket again that was shut down
	doReply                      // answer request; with a duplicate of the socket when the worker is to accept itself
	doPublish                    // send the socket to the listener process
	doShut                       // tell the listener process to drain and close its copy
	doClose                      // close the master's copy, remove the path
	doPause                      // tell whoever accepts to pause, or to resume: the listener process, or worker
	doTell                       // tell a worker that the listener is closed
	doRetire                     // close the master's copy of one member
	doRepair                     // see to it that the socket listens; then call repaired
	doRenew                      // send a worker its socket again
	doEnd                        // stop watching: everything is closed
	doDiscard                    // close given
	doWatch                      // the driver's: begin to watch, which has failed before
)

// refuse answers a with an error, and closes what came with it.
func refuse(p pendingRequest, call string, errno syscall.Errno) []effect {
	return refuseWith(p, wire.ListenReply{Errno: int(errno), Call: call})
}

// deny answers a that the rules are against it.
func deny(p pendingRequest) []effect {
	return refuseWith(p, wire.ListenReply{Errno: int(syscall.EACCES), Call: "listen", Denied: describe(p.req.Request)})
}

func refuseWith(p pendingRequest, r wire.ListenReply) []effect {
	given := p.socket
	p.socket = nil
	out := []effect{{kind: doReply, request: p, reply: r}}
	if given != nil {
		out = append(out, effect{kind: doDiscard, socket: given})
	}
	return out
}
