package registry

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// Config configures a Table. Zero fields mean the default.
type Config struct {
	Logger *slog.Logger // default slog.Default

	// Functions returns the user's functions of a listener, by [netactor.Request].Functions, of
	// which the Table calls Control. It does so only for sockets that [Table.Open] opens, because a
	// worker is not trusted. Default: none.
	Functions func(string) netactor.Functions

	// Rules returns the rules for the requests of a pool's workers, by the pool's name. It is
	// called for each request, and must not block. Default: anything is allowed.
	Rules func(pool string) netactor.ListenRules

	// Listeners are the listeners of the tree, which [Table.Open] will open. Every worker may ask
	// for them, also before they are open, and no worker can take their names.
	Listeners []netactor.Request

	// Store keeps the sockets that the Table opens beyond the end of the program. Default: none.
	Store Store

	// Ending reports whether the program is about to end, so that its sockets stay in the Store. It
	// must not block. Default: not before [Table.Close].
	Ending func() bool
}

// Table is the master's side: it opens every listening socket of the tree, holds it, shares it, and
// closes it when it has no owner any more. The rules are at tableState.
//
// All methods may be called by any goroutine. Only Open and Stats wait for a peer, until their
// context ends. The Table closes the Conn of a peer that does not read its control frames for long.
type Table struct {
	cfg   Config
	opens fdipc.Calls[struct{}, wire.ListenReply] // of Open, by pendingRequest.seq
	stats fdipc.Calls[struct{}, []byte]           // of Stats, to the listener process

	mu              sync.Mutex // held briefly: never during a send or a system call
	state           *tableState
	workers         map[uint64]*outbox // by worker ID
	listenerProcess *outbox            // to the listener process; nil without
	todo            []effect
	busy            bool // a goroutine works on todo
	closed          bool
	suspended       bool                    // todo is held back
	restored        map[uint64]*repairState // of Restore: repairs that are due, for Continue

	// Only the goroutine that works on todo uses these.
	sockets  map[socketKey]*heldSocket
	repairs  map[uint64]*repairState
	watcher  *socket.ShutdownWatcher // created with the first socket
	shortage faults.Outage           // of resources, for which retryLater waits
	retries  int                     // effects that wait in retryLater
	ended    sync.WaitGroup

	logs        faults.LogLimiter
	lastStats   []byte    // the newest counts that the listener process sent unasked
	lastStatsAt time.Time // when they came
}

// New returns an empty Table. The Table runs one goroutine from its first socket until Close.
func New(cfg Config) *Table {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	state := newTableState()
	state.specs = resolvedSpecs(cfg.Listeners)
	for i := range state.specs {
		state.specs[i].Control = cfg.control(state.specs[i].Request)
	}
	return &Table{
		logs:    faults.LogLimiter{Logger: cfg.Logger},
		repairs: make(map[uint64]*repairState),
		cfg:     cfg,
		state:   state,
		workers: make(map[uint64]*outbox),
		sockets: make(map[socketKey]*heldSocket),
	}
}

// control returns the user's Control function for a listener of the tree, or nil.
func (cfg Config) control(r netactor.Request) netactor.ControlFunc {
	if r.Functions == "" || cfg.Functions == nil {
		return nil
	}
	return cfg.Functions(r.Functions).Control
}

// Attach adds the listener process, with the Conn to it. The Table sends it every socket for it to
// accept on. After a restart of the listener process call Detach, then Attach again.
func (t *Table) Attach(c *fdipc.Conn) {
	t.step(func() []effect {
		known := t.restored != nil && t.state.attached && t.listenerProcess == nil
		t.listenerProcess = &outbox{c: c, logger: t.cfg.Logger}
		if known {
			return nil // it has its sockets
		}
		return t.state.attach()
	})
}

// Detach removes the listener process, after it was reaped.
func (t *Table) Detach() {
	t.step(func() []effect {
		t.listenerProcess = nil
		t.stats.Fail(func(*struct{}) error { return fdipc.ErrPeerLost })
		return t.state.detach()
	})
}

// AddWorker adds a worker, with the Conn to it. Call it before the Conn's frames are given to
// HandleFrame; otherwise the worker's requests are refused.
func (t *Table) AddWorker(w netactor.Worker, c *fdipc.Conn) {
	t.step(func() []effect {
		t.workers[w.ID] = &outbox{c: c, logger: t.cfg.Logger}
		t.state.addWorker(w)
		return nil
	})
}

// RemoveWorker removes a worker whose process is gone. retired means that no replacement will come:
// the worker was scaled away, or another generation took over. Otherwise the sockets that it
// listened on stay open for its replacement.
func (t *Table) RemoveWorker(id uint64, retired bool) {
	t.step(func() []effect {
		delete(t.workers, id)
		return t.state.removeWorker(id, retired)
	})
}

// title returns the name of a socket for logs.
func (s *socketState) title() string {
	return cmp.Or(s.req.Name, s.addr.Address, s.req.Address)
}

// Open opens the socket of a listener spec. owner is the spec's name; it owns the socket until
// StopOwner(owner). Open resolves r, and returns the address of the socket. Errors are those of
// net.Listen, or ctx's.
func (t *Table) Open(ctx context.Context, owner string, r netactor.Request) (net.Addr, error) {
	asked := r
	if r.FD != 0 {
		r.Packet = socket.IsPacket(r.FD)
	}
	r, err := wire.Resolve(ctx, r)
	if err != nil {
		return nil, err
	}

	call, err := t.opens.Begin(struct{}{})
	if err != nil {
		return nil, err
	}
	t.step(func() []effect {
		return t.state.listen(pendingRequest{owner: owner, seq: call.ID, req: socket.SocketSpec{Request: r, Control: t.cfg.control(r)}})
	})
	rep, err := call.Wait(ctx, nil)
	if err != nil {
		t.StopOwner(owner)
		return nil, err
	}
	if rep.Errno != 0 {
		addr, _ := address.Parse(r.Network, r.Address)
		return nil, rep.Err(asked.Network, addr)
	}
	return rep.Addr()
}

// copied is the result of a doCopy.
type copied struct {
	file *os.File
	err  error
}

// Copy returns a duplicate of the open socket of that name, owned by the caller, for a program that
// accepts by itself. The socket must be one on which the listener process does not accept. It has
// the flags of the socket: O_NONBLOCK is one of all who have it. The error for a name that no
// socket has wraps ENOENT; the end of ctx ends the wait.
func (t *Table) Copy(ctx context.Context, name string) (*os.File, error) {
	reply := make(chan copied, 1)
	t.step(func() []effect {
		s := t.state.sockets[t.state.names[name]]
		switch {
		case s == nil || s.phase != open:
			reply <- copied{nil, os.NewSyscallError("listen", syscall.ENOENT)}
		case s.req.Policy.Dispatched():
			reply <- copied{nil, fmt.Errorf("its policy is %v: %w", s.req.Policy, os.NewSyscallError("listen", syscall.EINVAL))}
		default:
			return []effect{{kind: doCopy, number: s.number, copied: reply}}
		}
		return nil
	})
	select {
	case c := <-reply:
		return c.file, c.err
	case <-ctx.Done():
		go func() { // ends with the copy, which waits for no other process
			if c := <-reply; c.file != nil {
				_ = c.file.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// StopOwner ends the ownership of a pool, or of a listener spec, in every socket. The Table closes
// sockets that have no other owner, and notifies workers that still have them open.
func (t *Table) StopOwner(owner string) {
	t.step(func() []effect { return t.state.stopOwner(owner) })
	socket.Files.WaitRemoved(socket.RemovalTimeout)
}

// Gone is StopOwner for a pool that has ended and is not started again. It also makes listeners of
// the tree that no other pool has used refuse clients, until a pool asks for them, and returns
// their names.
func (t *Table) Gone(owner string) (refusing []string) {
	t.step(func() (out []effect) {
		out, refusing = t.state.gone(owner)
		return out
	})
	socket.Files.WaitRemoved(socket.RemovalTimeout)
	return refusing
}

// Remove closes a socket for all owners, and notifies the workers that have it open. It returns
// false if there is no socket of that number.
func (t *Table) Remove(number uint64) (ok bool) {
	t.step(func() []effect {
		s := t.state.sockets[number]
		ok = s != nil && s.phase == open
		return t.state.remove(number)
	})
	socket.Files.WaitRemoved(socket.RemovalTimeout)
	return ok
}

// Sweep ends a pool's ownership of sockets that no worker of the given generation, or a newer one,
// has asked for. Call it when the pool's reload is complete.
func (t *Table) Sweep(owner string, generation int) {
	t.step(func() []effect { return t.state.sweep(owner, generation) })
}

// Unroll ends a pool's ownership of sockets that only workers of the given generation, or newer
// ones, asked for. Call it when the pool's reload has failed.
func (t *Table) Unroll(owner string, generation int) {
	t.step(func() []effect { return t.state.unroll(owner, generation) })
}

// Pause stops accepting on a socket until Resume, in every process; connections wait in the
// kernel's backlog. It returns false if there is no socket of that number.
func (t *Table) Pause(number uint64) bool { return t.control(wire.KindPause, number) }

// Refuse makes a socket refuse clients until Resume, those in its backlog too. A TCP port stays
// bound; a client gets a reset, or ECONNREFUSED. The connections that workers have go on. Refuse
// returns false if there is no socket of that number, if it refuses already, or if it is a socket
// from outside on which no listener process accepts.
func (t *Table) Refuse(number uint64) (ok bool) {
	t.step(func() []effect {
		out := t.state.refuse(number)
		ok = out != nil
		return out
	})
	return ok
}

// Resume ends Pause and Refuse.
func (t *Table) Resume(number uint64) bool { return t.control(wire.KindResume, number) }

func (t *Table) control(k fdipc.Kind, number uint64) (ok bool) {
	t.step(func() (out []effect) {
		out, ok = t.state.pause(number, k == wire.KindPause)
		return out
	})
	return ok
}

// Stats asks the listener process for its counts. Without a listener process the result is empty.
func (t *Table) Stats(ctx context.Context) ([]netactor.ListenerStats, error) {
	o := t.listenerOutbox()
	if o == nil {
		return nil, nil
	}
	b, err := t.stats.Do(ctx, o.c, &fdipc.Frame{Kind: wire.KindStats}, struct{}{})
	if err != nil {
		return nil, err
	}
	var out []netactor.ListenerStats
	err = wire.DecodeStats(b, &out)
	return out, err
}

// LastStats returns the newest counts that the listener process sent unasked, and when they came.
// It does not wait.
func (t *Table) LastStats() ([]netactor.ListenerStats, time.Time) {
	t.mu.Lock()
	b, at := t.lastStats, t.lastStatsAt
	t.mu.Unlock()
	var out []netactor.ListenerStats
	if b == nil || wire.DecodeStats(b, &out) != nil {
		return nil, time.Time{}
	}
	return out, at
}

// SocketInfo describes a socket that the master holds.
type SocketInfo struct {
	Number  uint64
	Name    string
	Network string
	Address string
	Policy  netactor.Policy
	Paused  bool
	Refuses bool     // it refuses clients; then Paused is set too
	Owners  []string // pools and specs
	Workers []uint64 // workers that have it open
	Group   int      // ReusePort: how many sockets the listener has
}

// Sockets returns the open sockets, sorted by number.
func (t *Table) Sockets() []SocketInfo {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []SocketInfo
	for _, s := range t.state.inOrder() {
		if s.phase != open {
			continue
		}
		info := SocketInfo{Number: s.number, Name: s.req.Name, Network: s.addr.Network, Address: s.addr.Address, Policy: s.req.Policy, Paused: s.paused || s.refusing, Refuses: s.refusing, Workers: s.holders(), Group: len(s.group)}
		for name := range s.owners {
			info.Owners = append(info.Owners, name)
		}
		slices.Sort(info.Owners)
		out = append(out, info)
	}
	return out
}

// Close closes every socket. It does not notify peers: they must be gone, or see their Conns end.
// Do not use the Table afterwards.
func (t *Table) Close() error {
	t.step(func() []effect {
		t.closed, t.suspended = true, false
		var out []effect
		for _, s := range t.state.inOrder() {
			if s.phase == open {
				out = append(out, effect{kind: doClose, number: s.number})
			}
		}
		last := t.state.last
		t.state = newTableState()
		t.state.last = last // numbers stay unique: a late frame finds nothing
		return append(out, effect{kind: doEnd})
	})
	t.ended.Wait() // the watcher
	socket.Files.WaitRemoved(socket.LastTimeout)
	return nil
}
