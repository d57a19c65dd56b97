package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// savedTable is what State returns, as CBOR. Descriptors are indexes. The zero value of a field
// that is added later must mean what was before it.
type savedTable struct {
	Last       uint64
	FreedPorts uint64
	Attached   bool
	Opens      uint64 // the last number of a call of Open, and of Stats
	Stats      uint64
	Sockets    []savedSocket
	Names      map[string]uint64
	Awaiting   []savedAsk
	Workers    []netactor.Worker
	Held       []savedHeld
	Repairs    map[uint64]time.Duration // pauses, of repairs that are due
	Todo       []savedEffect
}

type savedSocket struct {
	Number             uint64
	Key                string
	Req                savedSpec
	Phase              phase
	AwaitsPort         bool   `cbor:",omitempty"`
	FreedPorts         uint64 `cbor:",omitempty"`
	Paused, Refusing   bool
	FromWorker, OfTree bool
	FirstOwner         string
	Users              map[string]bool
	Waiting            []savedAsk `cbor:",omitempty"`
	Keys               []string
	Owners             map[string]savedOwnership
	Addr               wire.ListenReply
	Group              []savedMember `cbor:",omitempty"`
	LastMember         int           `cbor:",omitempty"`
}

type savedSpec struct {
	netactor.Request
	Control bool `cbor:",omitempty"` // the function is the next image's
}

type savedOwnership struct {
	Spec            bool              `cbor:",omitempty"`
	Holders         map[uint64]uint64 `cbor:",omitempty"`
	ShutDown        map[uint64]bool   `cbor:",omitempty"`
	Vacancies       int               `cbor:",omitempty"`
	FirstGeneration int               `cbor:",omitempty"`
	LastGeneration  int               `cbor:",omitempty"`
}

type savedMember struct {
	Index, Slot int
	Holders     map[uint64]bool `cbor:",omitempty"`
}

// savedAsk is a request that waits for its answer. The rules for it are the next image's.
type savedAsk struct {
	Worker uint64
	Owner  string
	Seq    uint64
	Req    savedSpec
	Rules  bool `cbor:",omitempty"`
}

type savedHeld struct {
	Number             uint64
	Index              int
	FD                 int // index of its descriptor; -1: it is to be opened again
	Path, FileID, Kept string
	ReopenNeeded       bool `cbor:",omitempty"`
}

type savedEffect struct {
	Kind       effectKind
	Number     uint64 `cbor:",omitempty"`
	Key        string `cbor:",omitempty"`
	Req        savedSpec
	FD         int // index of the descriptor of its socket; -1: none
	Request    savedAsk
	Reply      wire.ListenReply
	Worker     uint64 `cbor:",omitempty"`
	Renew      bool   `cbor:",omitempty"`
	GroupIndex int    `cbor:",omitempty"`
}

var (
	encoding = must(cbor.EncOptions{Sort: cbor.SortBytewiseLexical}.EncMode())

	// decoding refuses what no writer writes, and ignores fields that a later release writes.
	decoding = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 20, MaxNestedLevels: 16,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options are constant
	}
	return v
}

func saveSpec(r socket.SocketSpec) savedSpec { return savedSpec{r.Request, r.Control != nil} }

func (cfg Config) spec(s savedSpec) socket.SocketSpec {
	r := socket.SocketSpec{Request: s.Request}
	if s.Control {
		r.Control = cfg.control(s.Request)
	}
	return r
}

func saveAsk(p pendingRequest) savedAsk {
	return savedAsk{p.worker, p.owner, p.seq, saveSpec(p.req), p.rules != nil}
}

func (cfg Config) ask(s savedAsk) pendingRequest {
	p := pendingRequest{worker: s.Worker, owner: s.Owner, seq: s.Seq, req: cfg.spec(s.Req)}
	if s.Rules && cfg.Rules != nil {
		rules := cfg.Rules(s.Owner)
		p.rules = &rules
	}
	return p
}

func mapped[A, B any](all []A, f func(A) B) []B {
	out := make([]B, 0, len(all))
	for _, a := range all {
		out = append(out, f(a))
	}
	return out
}

// State returns what the next image of the program needs to go on with the Table, for [Restore],
// and the numbers of the descriptors in it, which stay the Table's. Suspend must have returned.
// What reaches the Table afterwards is not in it: so the Conns are to be suspended by then.
//
// Requests that wait are answered by the next image. Calls of Stats end with this one.
func (t *Table) State() (state []byte, fds []int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.suspended || t.closed {
		return nil, nil, ErrNotSuspended
	}
	descriptor := func(s *socket.Bound) int {
		if s == nil || s.Closed() {
			return -1
		}
		fds = append(fds, s.Descriptor())
		return len(fds) - 1
	}
	st := t.state
	v := savedTable{
		Last: st.last, FreedPorts: st.freedPorts, Attached: st.attached, Opens: t.opens.Last(), Stats: t.stats.Last(), Names: st.names, Repairs: make(map[uint64]time.Duration),
	}
	for _, s := range st.inOrder() {
		c := savedSocket{
			Number: s.number, Key: s.key, Req: saveSpec(s.req), Phase: s.phase, AwaitsPort: s.awaitsPort, FreedPorts: s.freedPorts,
			Paused: s.paused, Refusing: s.refusing, FromWorker: s.fromWorker, OfTree: s.ofTree, FirstOwner: s.firstOwner, Users: s.users,
			Waiting: mapped(s.waiting, saveAsk), Keys: s.keys, Addr: s.addr, LastMember: s.lastMember, Owners: make(map[string]savedOwnership),
			Group: mapped(s.group, func(g *groupSocket) savedMember { return savedMember{g.index, g.slot, g.holders} }),
		}
		for name, o := range s.owners {
			c.Owners[name] = savedOwnership{o.spec, o.holders, o.shutDown, o.vacancies, o.firstGeneration, o.lastGeneration}
		}
		v.Sockets = append(v.Sockets, c)
	}
	for _, name := range slices.Sorted(maps.Keys(st.awaitingName)) {
		for _, p := range st.awaitingName[name] {
			if p.worker != 0 { // else it is a call of Open
				v.Awaiting = append(v.Awaiting, saveAsk(p))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(st.workers)) {
		v.Workers = append(v.Workers, st.workers[id])
	}
	for _, key := range slices.SortedFunc(maps.Keys(t.sockets), func(a, b socketKey) int {
		return cmp.Or(cmp.Compare(a.number, b.number), a.index-b.index)
	}) {
		s := t.sockets[key]
		v.Held = append(v.Held, savedHeld{key.number, key.index, descriptor(s.Bound), s.Path(), s.FileID(), s.Kept, s.reopenNeeded})
	}
	for number, r := range t.repairs {
		if r.armed {
			v.Repairs[number] = r.pause
		}
	}
	for _, e := range t.todo {
		v.Todo = append(v.Todo, savedEffect{
			e.kind, e.number, e.key, saveSpec(e.req), descriptor(e.socket), saveAsk(e.request), e.reply, e.worker, e.renew, e.groupIndex,
		})
	}
	state, err = encoding.Marshal(v)
	return state, fds, err
}

// Restore makes the Table whose State another image of the program has returned. It is suspended:
// it does nothing before Continue, and the state can be given to another image until then. It takes
// ownership of the descriptors, and closes them on an error. The functions and rules of cfg are for
// what comes; the tree's listeners are opened and stopped as with any Table.
//
// Attach and AddWorker give it the Conns of the processes that the former image had.
func Restore(state []byte, fds []int, cfg Config) (t *Table, err error) {
	left := slices.Clone(fds)
	defer func() {
		for _, fd := range left {
			if fd >= 0 {
				_ = os.NewFile(uintptr(fd), "socket").Close() // there is nothing to do about an error
			}
		}
	}()
	var v savedTable
	if err := decoding.Unmarshal(state, &v); err != nil {
		return nil, fmt.Errorf("netactor: state of the table of sockets: %w", err)
	}
	t = New(cfg)
	defer func() {
		if err != nil {
			for _, s := range t.sockets {
				left = append(left, s.Release())
			}
			for _, e := range t.todo {
				if e.socket != nil {
					left = append(left, e.socket.Release())
				}
			}
			t, err = nil, fmt.Errorf("netactor: state of the table of sockets: %w", err)
		}
	}()
	take := func(i int, path, fileID, kept string) (*socket.Bound, error) {
		if i < 0 || i >= len(left) || left[i] < 0 {
			return nil, fmt.Errorf("descriptor %d of %d", i, len(left))
		}
		s, err := socket.Readopt(left[i], path, fileID, kept)
		if err == nil {
			left[i] = -1
		}
		return s, err
	}
	t.suspended, t.restored = true, make(map[uint64]*repairState)
	t.opens.Restore(v.Opens)
	t.stats.Restore(v.Stats)
	st := t.state
	st.last, st.freedPorts, st.attached = v.Last, v.FreedPorts, v.Attached
	for i := range v.Sockets {
		if err := st.restore(&v.Sockets[i], cfg); err != nil {
			return t, fmt.Errorf("Sockets[%d]: %w", i, err)
		}
	}
	for name, number := range v.Names {
		if st.sockets[number] == nil {
			return t, fmt.Errorf("Names: %q is of socket %d, which is not there", name, number)
		}
		st.names[name] = number
	}
	for _, a := range v.Awaiting {
		st.awaitingName[a.Req.Name] = append(st.awaitingName[a.Req.Name], cfg.ask(a))
	}
	for _, w := range v.Workers {
		st.addWorker(w)
	}
	for _, h := range v.Held {
		key := socketKey{h.Number, h.Index}
		if st.sockets[h.Number] == nil || t.sockets[key] != nil {
			return t, fmt.Errorf("Held: socket %d/%d", h.Number, h.Index)
		}
		s := new(socket.Bound)
		if h.FD >= 0 {
			if s, err = take(h.FD, h.Path, h.FileID, h.Kept); err != nil {
				return t, fmt.Errorf("Held: socket %d/%d: %w", h.Number, h.Index, err)
			}
		} else {
			s.Release() // it is closed
		}
		t.sockets[key] = &heldSocket{Bound: s, reopenNeeded: h.ReopenNeeded}
	}
	for number, pause := range v.Repairs {
		t.restored[number] = &repairState{pause: min(max(pause, firstRepair), maxRepair), last: time.Now()}
	}
	for i, e := range v.Todo {
		if e.Kind > doWatch || e.Kind == doOpened || e.Kind == doReopened || e.Kind == doEnd {
			return t, fmt.Errorf("Todo[%d]: Kind %d", i, e.Kind)
		}
		out := effect{
			kind: e.Kind, number: e.Number, key: e.Key, req: cfg.spec(e.Req), request: cfg.ask(e.Request), reply: e.Reply,
			worker: e.Worker, renew: e.Renew, groupIndex: e.GroupIndex,
		}
		if e.FD >= 0 {
			if out.socket, err = take(e.FD, "", "", ""); err != nil {
				return t, fmt.Errorf("Todo[%d]: %w", i, err)
			}
		}
		t.todo = append(t.todo, out)
	}
	return t, nil
}

// restore adds a socket that was saved.
func (t *tableState) restore(v *savedSocket, cfg Config) error {
	if v.Number == 0 || v.Number > t.last || t.sockets[v.Number] != nil {
		return fmt.Errorf("Number %d", v.Number)
	}
	if v.Phase > closing {
		return fmt.Errorf("Phase %d", v.Phase)
	}
	s := &socketState{
		number: v.Number, key: v.Key, req: cfg.spec(v.Req), phase: v.Phase, awaitsPort: v.AwaitsPort, freedPorts: v.FreedPorts,
		paused: v.Paused, refusing: v.Refusing, fromWorker: v.FromWorker, ofTree: v.OfTree, firstOwner: v.FirstOwner, users: v.Users,
		waiting: mapped(v.Waiting, cfg.ask), addr: v.Addr, owners: make(map[string]*ownership), lastMember: v.LastMember,
		group: mapped(v.Group, func(g savedMember) *groupSocket {
			return &groupSocket{index: g.Index, slot: g.Slot, holders: orEmpty(g.Holders)}
		}),
	}
	s.users = orEmpty(s.users)
	for _, key := range v.Keys {
		if _, taken := t.keys[key]; taken {
			return fmt.Errorf("Keys: %q is another socket's", key)
		}
		t.claimKey(s, key)
	}
	for name, o := range v.Owners {
		s.owners[name] = &ownership{
			spec: o.Spec, former: o.Spec, holders: orEmpty(o.Holders), shutDown: orEmpty(o.ShutDown), vacancies: o.Vacancies,
			firstGeneration: o.FirstGeneration, lastGeneration: o.LastGeneration,
		}
	}
	if s.phase == open && s.req.Policy == netactor.ReusePort && len(s.group) == 0 {
		return errors.New("Group is empty")
	}
	t.sockets[s.number] = s
	return nil
}

// Reclaim gives a listener spec the socket that it had in the image before this one, once, and the
// socket what r says of how its connections are handed over. ok is false if there is none that r
// asks for. A number of a descriptor has no meaning any more: with r.FD it is the socket that had
// one.
func (t *Table) Reclaim(owner string, r netactor.Request) (addr net.Addr, ok bool) {
	if !t.hasFormer(owner) {
		return nil, false // and needs no name server
	}
	if resolved, err := wire.Resolve(context.Background(), r); err == nil {
		r = resolved
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.state.sockets {
		o := s.owners[owner]
		if o == nil || !o.former || s.phase != open || (s.req.FD != 0) != (r.FD != 0) {
			continue
		}
		if r.FD == 0 && (s.req.Network != r.Network || s.req.Address != r.Address || s.req.Name != r.Name) {
			continue
		}
		if addr, err := s.addr.Addr(); err == nil {
			o.former = false
			s.handOverAs(r)
			return addr, true
		}
	}
	return nil, false
}

// handOverAs gives s what r says of how connections are handed over: the next listener process does
// so. What the kernel has of an open socket stays, and so does whether they are handed over at all.
func (s *socketState) handOverAs(r netactor.Request) {
	if to := &s.req; to.Policy.Dispatched() && r.Policy.Dispatched() {
		to.Policy, to.Peek, to.Functions, to.Limits, to.Credentials, to.Park = r.Policy, r.Peek, r.Functions, r.Limits, r.Credentials, r.Park
		s.addr.Policy, s.addr.Park = to.Policy, to.Parks()
	}
}

// hasFormer reports whether a listener spec has a socket that it has not claimed since Restore.
func (t *Table) hasFormer(owner string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.state.sockets {
		if o := s.owners[owner]; o != nil && o.former {
			return true
		}
	}
	return false
}

// EndFormer ends the ownership of the listener specs of sockets that they have not claimed since
// Restore.
func (t *Table) EndFormer() {
	t.step(func() (out []effect) {
		for _, s := range t.state.inOrder() {
			for _, name := range slices.Sorted(maps.Keys(s.owners)) {
				if s.owners[name].former {
					out = append(out, t.state.disown(s, name)...)
				}
			}
		}
		return out
	})
	socket.Files.WaitRemoved(socket.RemovalTimeout)
}

func orEmpty[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return m
}
