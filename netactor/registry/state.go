package registry

import (
	"maps"
	"slices"
	"syscall"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// tableState holds the rules of Table: which requests share a socket, and how long a socket lives.
// It has no goroutines, clocks, sockets or locks. Each event is a method that returns the effects
// to perform, in order.
//
// A socket is
//
//	pending  it is being opened; requests wait for the result
//	open     it has a key, and at least one owner
//	closing  it has no owner and no key any more, but the listener process may
//	         still have a copy, which keeps the port taken
//
// Owners are pools and listener specs. A spec owns a socket until it is stopped. A pool owns a
// socket until it is stopped, or until each of its live workers that had the socket has closed it.
// A worker that dies does not close the socket: it leaves a vacancy, which the replacement's
// request fills.
type tableState struct {
	last         uint64 // number of the newest socket
	sockets      map[uint64]*socketState
	keys         map[string]uint64 // share key → pending or open socket
	names        map[string]uint64
	awaitingName map[string][]pendingRequest // name → requests that wait until a socket has it
	workers      map[uint64]netactor.Worker
	attached     bool                // there is a listener process
	freedPorts   uint64              // counts the closing sockets that the listener process has let go of
	specs        []socket.SocketSpec // the tree's listeners, from its start
}

func newTableState() *tableState {
	return &tableState{
		sockets:      make(map[uint64]*socketState),
		keys:         make(map[string]uint64),
		names:        make(map[string]uint64),
		awaitingName: make(map[string][]pendingRequest),
		workers:      make(map[uint64]netactor.Worker),
	}
}

// listen handles a request. p.req is resolved and valid; if p.socket is set, p.req has that
// socket's address.
func (t *tableState) listen(p pendingRequest) []effect {
	if p.worker != 0 && t.socketsOf(p.worker) >= maxSockets {
		return refuse(p, "socket", syscall.EMFILE)
	}
	if p.worker == 0 && wire.Port(p.req.Request) == 0 {
		// Two specs that leave the port to the kernel want two sockets.
		for t.keys[p.key()] != 0 {
			p.req.Ordinal++
		}
	}
	if named := t.sockets[t.names[p.req.Name]]; p.worker == 0 && named != nil && t.keys[p.key()] != named.number {
		if o := named.owners[p.owner]; o != nil && o.former {
			delete(t.names, p.req.Name) // the spec has another address than in the image before
		}
	}
	s, taken := t.find(p)
	switch {
	case t.denied(p, s):
		return deny(p)
	case taken || s != nil && p.socket != nil || s == nil && t.reserved(p):
		return refuse(p, "bind", syscall.EADDRINUSE)
	case s != nil && s.phase == pending:
		s.waiting = append(s.waiting, p)
		return nil
	case s != nil:
		return t.share(s, p)
	case p.req.FD == 0 && p.req.Network == "":
		if p.req.Wait {
			t.awaitingName[p.req.Name] = append(t.awaitingName[p.req.Name], p)
			return nil
		}
		return refuse(p, t.unknownName(p), syscall.ENOENT)
	}
	if p.worker != 0 && address.IsLocal(p.req.Network) && t.openingFor(p.owner) >= maxOpening {
		return refuse(p, "bind", syscall.EAGAIN)
	}
	t.last++
	spec := t.settingsOfSpec(&p)
	s = &socketState{
		number: t.last, key: p.key(), req: p.req, ofTree: spec, firstOwner: p.owner, freedPorts: t.freedPorts,
		waiting: []pendingRequest{p}, owners: make(map[string]*ownership), users: make(map[string]bool),
	}
	t.sockets[s.number] = s
	t.claimKey(s, s.key)
	if p.req.Name != "" {
		t.names[p.req.Name] = s.number
	}
	given := p.socket
	s.waiting[0].socket, s.fromWorker = nil, given != nil
	return []effect{{kind: doOpen, number: s.number, key: s.key, req: p.req, socket: given}}
}

// maxSockets bounds the sockets that one worker may have open or ask for at a time, so that a
// faulty worker does not use up the descriptors of all.
const maxSockets = 1024

// maxOpening bounds the Unix sockets of one pool that are being opened at a time, because a file
// system that does not answer occupies one thread for each.
const maxOpening = 64

// openingFor returns how many Unix sockets are being opened for the workers of a pool.
func (t *tableState) openingFor(owner string) (n int) {
	for _, s := range t.sockets {
		if s.phase == pending && address.IsLocal(s.req.Network) && s.firstOwner == owner {
			n++
		}
	}
	return n
}

// socketsOf returns how many sockets a worker has open or waits for.
func (t *tableState) socketsOf(worker uint64) (n int) {
	count := func(asks []pendingRequest) {
		for _, p := range asks {
			if p.worker == worker {
				n++
			}
		}
	}
	for _, s := range t.sockets {
		count(s.waiting)
		for _, o := range s.owners {
			if o.has(worker) {
				n++
			}
		}
	}
	for _, asks := range t.awaitingName {
		count(asks)
	}
	return n
}

// find returns the socket that p asks for, or nil. taken reports whether p's name belongs to a
// socket with another address.
func (t *tableState) find(p pendingRequest) (s *socketState, taken bool) {
	r := p.req
	byName := t.sockets[t.names[r.Name]]
	if r.Name == "" {
		byName = nil
	}
	if r.FD == 0 && r.Network == "" {
		return byName, false
	}
	byKey := t.sockets[t.keys[p.key()]]
	if byName != nil && byName != byKey {
		return nil, true
	}
	return byKey, false
}

func (t *tableState) claimKey(s *socketState, key string) {
	if _, taken := t.keys[key]; !taken {
		t.keys[key] = s.number
		s.keys = append(s.keys, key)
	}
}

// forget removes the keys and the names of s, so that the next request for them opens a new socket.
func (t *tableState) forget(s *socketState) {
	for _, k := range s.keys {
		delete(t.keys, k)
	}
	s.keys = nil
	for name, n := range t.names {
		if n == s.number {
			delete(t.names, name)
		}
	}
}

// share gives an open socket to one more requester. A worker has a socket once: when it listens
// again on the same socket it gets EADDRINUSE, as from the kernel.
func (t *tableState) share(s *socketState, p pendingRequest) []effect {
	if t.denied(p, s) {
		return deny(p) // p waited for a name
	}
	if p.worker != 0 && (p.req.Packet || address.IsPacket(p.req.Network)) != address.IsPacket(s.addr.Network) {
		if p.req.FD != 0 {
			return refuse(p, "listen", syscall.EINVAL) // N100
		}
		return refuse(p, "listen", syscall.EPROTOTYPE) // the name is that of a packet socket, and p wants a stream, or vice versa
	}
	o := s.owners[p.owner]
	if o != nil && (o.spec && p.worker == 0 || o.has(p.worker)) {
		return refuse(p, "bind", syscall.EADDRINUSE)
	}
	w, alive := t.workers[p.worker]
	if p.worker != 0 && !alive && o != nil {
		return refuse(p, "listen", syscall.ECANCELED) // the worker died while it waited
	}
	if o == nil {
		o = &ownership{holders: make(map[uint64]uint64), shutDown: make(map[uint64]bool), firstGeneration: w.Generation}
		s.owners[p.owner] = o
	}
	var out []effect
	if p.worker != 0 {
		s.users[p.owner] = true
		out = s.admit()
	}
	switch {
	case p.worker == 0:
		o.spec, o.former = true, false
	case alive:
		if !o.leave(p.worker) {
			o.vacancies = max(0, o.vacancies-1)
		}
		o.holders[p.worker] = p.seq
		o.lastGeneration = max(o.lastGeneration, w.Generation)
	default:
		o.vacancies++ // the first requester died while it waited: a death is not a close
	}
	e := effect{kind: doReply, number: s.number, request: p, reply: s.addr}
	e.reply.Paused = s.paused
	if s.req.Policy == netactor.ReusePort && alive {
		e.groupIndex = s.groupSocketFor(w).index
	}
	out = append(out, e)
	if p.req.Name != "" {
		if _, named := t.names[p.req.Name]; !named {
			t.names[p.req.Name] = s.number
			if s.req.Name != "" {
				out = append(out, effect{kind: doNoteName, number: s.number, request: p})
			}
			out = append(out, t.serveAwaitingName(s)...)
		}
	}
	return out
}

// serveAwaitingName gives s to the requests that wait for one of its names.
func (t *tableState) serveAwaitingName(s *socketState) []effect {
	var out []effect
	for _, name := range slices.Sorted(maps.Keys(t.awaitingName)) {
		if t.names[name] != s.number {
			continue
		}
		asks := t.awaitingName[name]
		delete(t.awaitingName, name)
		for _, p := range asks {
			out = append(out, t.share(s, p)...)
		}
	}
	return out
}

// forgetAwaitingName removes the waiting requests by name for which drop returns true, and returns
// them.
func (t *tableState) forgetAwaitingName(drop func(pendingRequest) bool) (dropped []pendingRequest) {
	for _, name := range slices.Sorted(maps.Keys(t.awaitingName)) {
		t.awaitingName[name] = slices.DeleteFunc(t.awaitingName[name], func(p pendingRequest) bool {
			if drop(p) {
				dropped = append(dropped, p)
				return true
			}
			return false
		})
		if len(t.awaitingName[name]) == 0 {
			delete(t.awaitingName, name)
		}
	}
	return dropped
}

// opened takes the result of doOpen: an address, or an error. If a closing socket still holds the
// port, the requests wait until it frees the port. On any other error opened forgets the key at
// once, so that a later request tries anew, and all waiting requests get the error.
func (t *tableState) opened(number uint64, r wire.ListenReply) []effect {
	s := t.sockets[number]
	if s == nil || s.phase != pending {
		return nil
	}
	if r.Errno != 0 {
		if syscall.Errno(r.Errno) == syscall.EADDRINUSE && t.portClosing(s.req) {
			s.awaitsPort = true
			return nil
		}
		if syscall.Errno(r.Errno) == syscall.EADDRINUSE && s.freedPorts != t.freedPorts {
			s.freedPorts = t.freedPorts // a closing socket freed its port while this one was being opened
			return []effect{{kind: doOpen, number: number, key: s.key, req: s.req}}
		}
		t.forget(s)
		delete(t.sockets, number)
		var out []effect
		for _, p := range s.waiting {
			out = append(out, effect{kind: doReply, request: p, reply: r})
		}
		return out
	}
	s.phase, s.awaitsPort = open, false
	if address.IsPacket(r.Network) && s.req.Policy != netactor.ReusePort {
		s.req.Policy = netactor.Shared // there are no connections to hand over, whatever the request says (as Node)
	}
	r.Number, r.Name, r.Policy = number, s.req.Name, s.req.Policy
	if !r.Policy.Dispatched() {
		r.Options, r.Credentials = connOptions(s.req.Options), s.req.Credentials
	} else {
		r.Park = s.req.Parks()
	}
	s.addr = r
	// The port that a request for port 0 got is an alias (N134, X10).
	if address.IsInternet(s.req.Network) && wire.Port(s.req.Request) == 0 {
		alias := s.req
		alias.Address, alias.Ordinal = s.boundAddress(), 0
		t.claimKey(s, wire.Key(alias.Request))
	}
	asks := s.waiting
	s.waiting = nil
	var out []effect
	if s.req.Policy.Dispatched() && t.attached {
		out = append(out, effect{kind: doPublish, number: number}) // before any worker can close it
	}
	if s.req.Policy == netactor.ReusePort {
		s.group = append(s.group, s.newGroupSocket())
	}
	for _, p := range asks {
		out = append(out, t.share(s, p)...)
	}
	out = append(out, t.serveAwaitingName(s)...)
	return append(out, t.closeUnowned(s)...) // all requesters may be gone
}

// portClosing reports whether a closing socket may hold the port of r. A closing socket has a
// dispatching policy, so its port is a TCP port.
func (t *tableState) portClosing(r socket.SocketSpec) bool {
	p := wire.Port(r.Request)
	for _, s := range t.sockets {
		if s.phase == closing && p > 0 && !address.IsPacket(r.Network) && wire.Port(netactor.Request{Network: "tcp", Address: s.addr.Address}) == p {
			return true
		}
	}
	return false
}

// closed is the event that a worker closed the listener.
func (t *tableState) closed(worker, number uint64) []effect {
	s := t.sockets[number]
	if s == nil || s.phase != open {
		return nil
	}
	for name, o := range s.owners {
		if o.leave(worker) && o.ended() {
			delete(s.owners, name)
		}
	}
	return append(s.release(worker, true), t.closeUnowned(s)...)
}

// giveUp is the event that a worker no longer wants the socket of its request seq, answered or not.
func (t *tableState) giveUp(worker, seq uint64) []effect {
	t.forgetAwaitingName(func(p pendingRequest) bool { return p.worker == worker && p.seq == seq })
	for _, s := range t.inOrder() {
		s.waiting = slices.DeleteFunc(s.waiting, func(p pendingRequest) bool { return p.worker == worker && p.seq == seq })
		if s.awaitsPort && len(s.waiting) == 0 {
			t.forget(s)
			delete(t.sockets, s.number)
			continue
		}
		for _, o := range s.owners {
			if n, ok := o.holders[worker]; ok && n == seq {
				return t.closed(worker, s.number)
			}
		}
	}
	return nil
}

// addWorker adds a worker, before its first request.
func (t *tableState) addWorker(w netactor.Worker) { t.workers[w.ID] = w }

// removeWorker is the event that a worker is gone. retired means that no replacement will come: the
// worker was scaled away or replaced already, and the sockets that it still had count as closed.
func (t *tableState) removeWorker(id uint64, retired bool) []effect {
	delete(t.workers, id)
	t.forgetAwaitingName(func(p pendingRequest) bool { return p.worker == id })
	var out []effect
	for _, s := range t.inOrder() {
		for name, o := range s.owners {
			if !o.leave(id) {
				continue
			}
			if !retired {
				o.vacancies++
			} else if o.ended() {
				delete(s.owners, name)
			}
		}
		out = append(out, s.release(id, retired)...)
		out = append(out, t.closeUnowned(s)...)
	}
	return out
}

// stopOwner ends the ownership of a pool, or of a spec, in every socket.
func (t *tableState) stopOwner(owner string) []effect {
	var out []effect
	for _, p := range t.forgetAwaitingName(func(p pendingRequest) bool { return p.owner == owner }) {
		out = append(out, refuse(p, "listen", syscall.ECANCELED)...)
	}
	for _, s := range t.inOrder() {
		asks := s.waiting
		s.waiting = nil
		for _, p := range asks {
			if p.owner == owner {
				out = append(out, refuse(p, "listen", syscall.ECANCELED)...)
			} else {
				s.waiting = append(s.waiting, p)
			}
		}
		if s.awaitsPort && len(s.waiting) == 0 {
			t.forget(s)
			delete(t.sockets, s.number)
		}
		if s.owners[owner] != nil {
			out = append(out, t.disown(s, owner)...)
		}
	}
	return out
}

// unroll ends a pool's ownership of every socket that only workers of the given generation, or
// newer ones, asked for, after its reload has failed.
func (t *tableState) unroll(owner string, generation int) []effect {
	return t.disownAll(owner, func(o *ownership) bool { return o.firstGeneration >= generation })
}

// sweep ends a pool's ownership of every socket that no worker of the given generation, or a newer
// one, asked for, after its reload is complete.
func (t *tableState) sweep(owner string, generation int) []effect {
	return t.disownAll(owner, func(o *ownership) bool { return o.lastGeneration < generation })
}

// disownAll ends a pool's ownership of the sockets for which over returns true.
func (t *tableState) disownAll(owner string, over func(*ownership) bool) (out []effect) {
	for _, s := range t.inOrder() {
		if o := s.owners[owner]; o != nil && !o.spec && over(o) {
			out = append(out, t.disown(s, owner)...)
		}
	}
	return out
}

func (t *tableState) disown(s *socketState, owner string) []effect {
	var out []effect
	for _, id := range slices.Sorted(maps.Keys(s.owners[owner].holders)) {
		out = append(out, effect{kind: doTell, number: s.number, worker: id})
		out = append(out, s.release(id, true)...)
	}
	delete(s.owners, owner)
	return append(out, t.closeUnowned(s)...)
}

// closeUnowned closes s if it is open and has no owner.
func (t *tableState) closeUnowned(s *socketState) []effect {
	if s.phase != open || len(s.owners) > 0 {
		return nil
	}
	t.forget(s)
	out := []effect{{kind: doClose, number: s.number}}
	if s.req.Policy.Dispatched() && t.attached {
		s.phase = closing
		return append(out, effect{kind: doShut, number: s.number})
	}
	delete(t.sockets, s.number)
	return out
}

// shutAcked is the event that the listener process has closed its copy.
func (t *tableState) shutAcked(number uint64) []effect {
	if s := t.sockets[number]; s == nil || s.phase != closing {
		return nil
	}
	delete(t.sockets, number)
	t.freedPorts++
	return t.retryAwaitingPort()
}

// attach is the event that a listener process has come: it gets every socket for it to accept on.
func (t *tableState) attach() []effect {
	t.attached = true
	var out []effect
	for _, s := range t.inOrder() {
		if s.phase == open && s.req.Policy.Dispatched() && (!s.refusing || s.given()) {
			out = append(out, effect{kind: doPublish, number: s.number})
		}
	}
	return out
}

// detach is the event that the listener process is gone, and its copies with it.
func (t *tableState) detach() []effect {
	t.attached = false
	for _, s := range t.inOrder() {
		if s.phase == closing {
			delete(t.sockets, s.number)
			t.freedPorts++
		}
	}
	return t.retryAwaitingPort()
}

func (t *tableState) retryAwaitingPort() []effect {
	var out []effect
	for _, s := range t.inOrder() {
		if s.phase == pending && s.awaitsPort {
			s.awaitsPort, s.freedPorts = false, t.freedPorts
			out = append(out, effect{kind: doOpen, number: s.number, key: s.key, req: s.req})
		}
	}
	return out
}

// inOrder returns the sockets sorted by number, so that effects come in a fixed order.
func (t *tableState) inOrder() []*socketState {
	out := slices.Collect(maps.Values(t.sockets))
	slices.SortFunc(out, func(a, b *socketState) int { return int(a.number) - int(b.number) })
	return out
}

// pause makes the processes that accept on a socket pause, or resume. It returns false if there is
// no such socket, or it is a packet socket.
func (t *tableState) pause(number uint64, paused bool) ([]effect, bool) {
	s := t.sockets[number]
	if s == nil || s.phase != open || address.IsPacket(s.addr.Network) {
		return nil, false
	}
	s.paused = paused
	if !paused && s.refusing {
		return s.admit(), true
	}
	return s.tellPause(), true
}

// tellPause tells the processes that accept on s whether they may.
func (s *socketState) tellPause() (out []effect) {
	if s.req.Policy.Dispatched() {
		return []effect{{kind: doPause, number: s.number}}
	}
	for _, id := range s.holders() {
		out = append(out, effect{kind: doPause, number: s.number, worker: id})
	}
	return out
}

// gone is the event that a pool has ended and is not started again. A listener of the tree that no
// other pool has used refuses clients from now on, because nothing would serve them. gone returns
// the titles of these listeners.
func (t *tableState) gone(owner string) (out []effect, refusing []string) {
	out = t.stopOwner(owner)
	for _, s := range t.inOrder() {
		if !s.users[owner] {
			continue
		}
		delete(s.users, owner)
		if len(s.users) > 0 || !s.ofSpec() {
			continue
		}
		if effects := t.refuse(s.number); effects != nil {
			out, refusing = append(out, effects...), append(refusing, s.title())
		}
	}
	return out, refusing
}

// refuse makes a socket refuse clients until admit, and closes the connections that wait for a
// worker. A socket from outside is not shut down, because other programs may have it: the listener
// process accepts its connections and resets them. Without a listener process for it, a socket from
// outside goes on to listen; then refuse returns nil.
func (t *tableState) refuse(number uint64) []effect {
	s := t.sockets[number]
	if s == nil || s.phase != open || s.refusing || s.given() && !s.req.Policy.Dispatched() {
		return nil
	}
	s.refusing = true
	out := s.tellPause()
	if !s.given() {
		out = append(out, effect{kind: doRefuse, number: number})
	}
	return out
}

// admit ends refuse.
func (s *socketState) admit() []effect {
	if !s.refusing {
		return nil
	}
	s.refusing = false
	if s.given() {
		return s.tellPause()
	}
	return append([]effect{{kind: doAdmit, number: s.number}}, s.tellPause()...)
}

// holders returns the live workers that have the socket open.
func (s *socketState) holders() (ids []uint64) {
	for _, o := range s.owners {
		for id := range o.holders {
			if o.has(id) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

// remove ends the ownership of all owners of a socket.
func (t *tableState) remove(number uint64) (out []effect) {
	s := t.sockets[number]
	if s == nil || s.phase != open {
		return nil
	}
	for _, owner := range slices.Sorted(maps.Keys(s.owners)) {
		out = append(out, t.disown(s, owner)...)
	}
	return out
}

// broken is the event that a socket may have stopped listening: a process that has it, or had it,
// has shut it down, or the listener process could not open it.
func (t *tableState) broken(number uint64) []effect {
	if s := t.sockets[number]; s == nil || s.phase != open || s.refusing {
		return nil
	}
	return []effect{{kind: doRepair, number: number}}
}

// evict is the event that a packet socket, or one member of it, was shut down and is replaced. The
// workers' duplicates cannot be replaced. So the workers are notified that the socket is closed,
// and a worker that asks again, or its replacement, gets the new one. Until then a worker stays a
// holder, until it closes its duplicate or dies.
func (t *tableState) evict(number uint64, member int) (out []effect) {
	s := t.sockets[number]
	if s == nil || s.phase != open {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.owners)) {
		o := s.owners[name]
		for _, id := range slices.Sorted(maps.Keys(o.holders)) {
			if o.shutDown[id] || s.groupIndexOf(id) != member {
				continue
			}
			o.shutDown[id] = true
			out = append(out, effect{kind: doTell, number: number, worker: id})
		}
	}
	return out
}

// repaired is the event that a socket listens again: each process that accepts on it is sent it
// again.
func (t *tableState) repaired(number uint64) []effect {
	s := t.sockets[number]
	if s == nil || s.phase != open {
		return nil
	}
	if address.IsPacket(s.addr.Network) {
		return nil // see evict
	}
	if s.req.Policy.Dispatched() {
		if t.attached {
			return []effect{{kind: doPublish, number: number, renew: true}}
		}
		return nil
	}
	var out []effect
	for _, id := range s.holders() {
		out = append(out, effect{kind: doRenew, number: number, worker: id, groupIndex: s.groupIndexOf(id)})
	}
	return out
}

// connOptions returns the options that package net sets anew on each connection that it accepts.
func connOptions(o netactor.SocketOptions) netactor.SocketOptions {
	return netactor.SocketOptions{KeepAliveIdle: o.KeepAliveIdle, KeepAliveInterval: o.KeepAliveInterval, KeepAliveCount: o.KeepAliveCount, Delay: o.Delay}
}
