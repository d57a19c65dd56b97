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
	key        string // its share key
	req        socket.SocketSpec
	phase      phase
	awaitsPort bool   // pending: waits until a closing socket frees the port
	freedPorts uint64 // pending: tableState.freedPorts when the opening began
	paused     bool
	refusing   bool            // clients are refused; see tableState.refuse
	users      map[string]bool // the pools that have had it and are not gone for good
	fromWorker bool            // a worker opened it
	ofTree     bool            // it is the tree's, though a worker asked first
	firstOwner string          // the owner that asked first
	waiting    []pendingRequest
	keys       []string // its key, and the alias with the port that it got
	owners     map[string]*ownership
	addr       wire.ListenReply // open: the reply to every request

	group      []*groupSocket // ReusePort: the sockets of the listener
	lastMember int            // index for the next member
}

// given reports whether the socket came from outside: other programs may have it too.
func (s *socketState) given() bool { return s.fromWorker || s.req.FD != 0 }

// boundAddress returns the address of the request, with the port that the socket got.
func (s *socketState) boundAddress() string {
	asked, err := netip.ParseAddrPort(s.req.Address)
	got, e := netip.ParseAddrPort(s.addr.Address)
	if err != nil || e != nil {
		return s.addr.Address
	}
	return netip.AddrPortFrom(asked.Addr(), got.Port()).String()
}

// ownership is the share that one pool, or one spec, has in a socket.
type ownership struct {
	spec            bool
	former          bool              // a spec that had it in the image before this one, and has not claimed it since
	holders         map[uint64]uint64 // live workers that have it → the request by which each got it
	shutDown        map[uint64]bool   // holders whose copy was shut down: they may ask again
	vacancies       int               // workers that died with it, not yet replaced
	firstGeneration int               // the generation that asked first; 0: a spec, or a worker that is gone
	lastGeneration  int               // the newest generation that asked
}

// has reports whether a worker has it open.
func (o *ownership) has(worker uint64) bool {
	_, ok := o.holders[worker]
	return ok && !o.shutDown[worker]
}

// leave removes a worker. It returns false if the worker was not a holder.
func (o *ownership) leave(worker uint64) bool {
	_, ok := o.holders[worker]
	delete(o.holders, worker)
	delete(o.shutDown, worker)
	return ok
}

// ended reports whether o has no holder, no spec, and expects no replacement.
func (o *ownership) ended() bool { return !o.spec && len(o.holders) == 0 && o.vacancies == 0 }

// pendingRequest is one request that waits for its reply.
type pendingRequest struct {
	worker uint64 // 0: the listener spec named owner
	owner  string
	seq    uint64 // the worker's number for its request; for a spec, the driver's
	req    socket.SocketSpec
	socket *socket.Bound         // a socket that the worker sent; owned by the holder of the request
	rules  *netactor.ListenRules // of the worker's pool; nil: anything is allowed
}

// key returns the share key of a request. A worker's request that leaves the port to the kernel and
// has no name means its pool's socket.
func (p pendingRequest) key() string {
	key := wire.Key(p.req.Request)
	if p.worker != 0 && p.req.Name == "" && wire.Port(p.req.Request) == 0 {
		key += "@" + p.owner
	}
	return key
}

// effect is one action for the driver. The driver performs effects in order. It reports the result
// of an open to the state before it performs the next effect; the result of opening a Unix socket
// comes later.
type effect struct {
	kind       effectKind
	number     uint64
	req        socket.SocketSpec // doOpen
	key        string            // doOpen: the share key
	socket     *socket.Bound     // doOpen, doOpened, doReopened, doDiscard
	old        *heldSocket       // doReopened: the socket that is replaced
	request    pendingRequest    // doReply, doNoteName
	reply      wire.ListenReply  // doReply, doOpened, doReopened
	worker     uint64            // doTell, doRenew
	renew      bool              // doPublish: it replaces the copy that the listener process has
	groupIndex int               // doReply, doRenew, doRetire, doReopened: which socket of a ReusePort listener
	tries      int               // used by the driver: how often it failed for lack of resources
	copied     chan<- copied     // doCopy
}

type effectKind uint8

const (
	doOpen     effectKind = iota // open the socket of req, or take socket; then call opened
	doOpened                     // take the result of a doOpen; then call opened
	doReopened                   // used by the driver: take the result of reopening a socket that was shut down
	doReply                      // answer request; with a duplicate of the socket if the worker accepts itself
	doPublish                    // send the socket to the listener process
	doShut                       // tell the listener process to drain and close its copy
	doClose                      // close the master's copy, remove the path
	doPause                      // tell the process that accepts, the listener process or worker, to pause or to resume
	doRefuse                     // make the socket refuse clients, those in its backlog too
	doAdmit                      // make it listen again; then call repaired
	doTell                       // tell a worker that the listener is closed
	doRetire                     // close the master's copy of one member
	doRepair                     // make the socket listen; then call repaired
	doRenew                      // send a worker its socket again
	doEnd                        // stop the watcher: all sockets are closed
	doDiscard                    // close socket
	doNoteName                   // log that request has another name for the socket
	doWatch                      // used by the driver: start the watcher, which failed before
	doCopy                       // give a duplicate of the socket to copied
)

// refuse answers p with an error, and closes the socket that came with it.
func refuse(p pendingRequest, call string, errno syscall.Errno) []effect {
	return refuseWith(p, wire.ListenReply{Errno: int(errno), Call: call})
}

// deny answers p with EACCES: the rules forbid it.
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
