package registry

import (
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// step changes the state by f, under the lock, and then does what follows from
// it, without. Effects are done in order and by one goroutine at a time: one
// that comes while another is at work leaves its own to it.
func (t *Table) step(f func() []effect) {
	t.mu.Lock()
	t.todo = append(t.todo, f()...)
	if t.busy {
		t.mu.Unlock()
		return
	}
	t.busy = true
	for len(t.todo) > 0 {
		e := t.todo[0]
		t.todo = t.todo[1:]
		t.mu.Unlock()
		then := t.perform(e)
		t.mu.Lock()
		if then != nil {
			t.todo = append(t.todo, then()...)
		}
	}
	t.busy = false
	t.mu.Unlock()
}

// perform does one effect. What it returns is to be called under the lock.
func (t *Table) perform(e effect) (then func() []effect) {
	isAside := e.kind == doOpen && address.IsLocal(e.req.Network) && (e.tries == 0 || t.isPending(e.number))
	if e.tries > 0 && !isAside { // then doOpened is the end of the try
		t.retries--
		defer t.retryEnded()
	}
	switch e.kind {
	case doOpen:
		if isAside {
			t.openInBackground(e)
			return nil
		}
		if e.tries > 0 && !t.isPending(e.number) {
			return nil // nothing waits for it any more
		}
		s, r := t.openRequested(e)
		return t.opened(e, s, r)
	case doOpened:
		return t.opened(e, e.socket, e.reply)
	case doReopened:
		return t.reopened(e)
	case doReply:
		t.sendReply(e)
	case doPublish:
		t.publish(e)
	case doPause:
		t.pause(e.number, e.worker)
	case doRepair:
		return t.repair(e.number)
	case doRenew:
		t.renew(e)
	case doWatch:
		t.watch(e)
	case doEnd:
		if t.watcher != nil {
			t.watcher.Close()
			t.watcher = nil
		}
	case doShut:
		t.send(t.listenerOutbox(), &fdipc.Frame{Kind: wire.KindShut, Target: e.number})
	case doTell:
		t.send(t.workerOutbox(e.worker), &fdipc.Frame{Kind: wire.KindShut, Target: e.number})
	case doClose:
		var after []effect
		for key, s := range t.sockets {
			if key.number != e.number {
				continue
			}
			if !s.reopening { // or reopened sees to them
				after = append(after, s.waiting...)
			}
			t.dropSocket(key)
		}
		delete(t.repairs, e.number)
		return func() []effect {
			return t.failWaiting(after, wire.ListenReply{Errno: int(syscall.ECANCELED), Call: "listen"})
		}
	case doRetire:
		if s := t.sockets[socketKey{e.number, e.groupIndex}]; s != nil && s.IsPacket() {
			t.logs.Warn("the socket of a worker that is not replaced is closed: what is queued in it is lost", "listener", t.title(e.number))
		} else if !socket.Migrates() {
			t.logs.Warn("the socket of a worker that is not replaced is closed: what waits in its backlog is reset, for net.ipv4.tcp_migrate_req is 0",
				"listener", t.title(e.number))
		}
		t.dropSocket(socketKey{e.number, e.groupIndex})
	case doDiscard:
		e.socket.CloseInBackground()
	}
	return nil
}

// openRequested opens or takes the socket of a doOpen.
func (t *Table) openRequested(e effect) (*socket.Bound, wire.ListenReply) {
	var s *socket.Bound
	var err error
	if e.socket == nil {
		s, err = socket.Open(e.req)
	} else {
		if s, err = e.socket.Applied(e.req); err == nil {
			s.AdoptFile()
		}
	}
	if err != nil {
		return nil, wire.Failed(err)
	}
	network, addr, err := s.Address()
	if err != nil {
		s.Close()
		return nil, wire.Failed(err)
	}
	if address.IsLocal(e.req.Network) {
		addr = e.req.Address // the kernel knows a long path by a shorter name
	}
	return s, wire.ListenReply{Network: network, Address: addr}
}

// isPending reports whether a socket is to be opened still.
func (t *Table) isPending(number uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state.sockets[number]
	return s != nil && s.phase == pending
}

// opened takes in the socket of a doOpen, nil if there is none.
func (t *Table) opened(e effect, s *socket.Bound, r wire.ListenReply) (then func() []effect) {
	number := e.number
	if s == nil && e.reopenable() {
		e.kind, e.reply = doOpen, wire.ListenReply{}
		if t.retryLater(e, syscall.Errno(r.Errno), maxTries) {
			return nil
		}
	}
	if s != nil {
		t.mu.Lock()
		closed := t.closed
		t.mu.Unlock()
		if closed { // while it was being opened
			s.CloseInBackground()
			return nil
		}
		t.addSocket(socketKey{number, 0}, s)
	}
	return func() []effect { return t.state.opened(number, r) }
}

// sendReply sends a reply, with the socket if the worker is to accept itself.
func (t *Table) sendReply(e effect) {
	p := e.request
	if p.worker == 0 {
		t.mu.Lock()
		ch := t.opens[p.seq]
		delete(t.opens, p.seq)
		t.mu.Unlock()
		if ch != nil {
			ch <- e.reply // capacity 1, and the only one
		}
		return
	}
	f := &fdipc.Frame{Kind: wire.KindReply, Target: p.seq}
	if e.reply.Denied != "" {
		t.logs.Warn("a worker asks for what its pool may not listen on: neither a listener of the tree nor in Pool.Listen",
			"pool", p.owner, "worker", p.worker, "asked", e.reply.Denied)
	}
	if e.reply.Errno == 0 && !e.reply.Policy.Dispatched() {
		if t.waitForReopen(socketKey{e.number, e.groupIndex}, e) {
			return
		}
		h, err := t.memberHandle(socketKey{e.number, e.groupIndex})
		if err != nil && t.retryLater(e, err, maxTries) {
			return
		}
		if err != nil {
			e.reply = wire.Failed(err)
			t.mu.Lock()
			t.todo = append(t.todo, t.state.closed(p.worker, e.number)...)
			t.mu.Unlock()
		} else {
			f.Handles = []*fdipc.Handle{h}
		}
	}
	f.Payload = wire.Encode(e.reply)
	t.send(t.workerOutbox(p.worker), f)
}

// publish sends a socket to the listener process; renew says in place of the one it has.
func (t *Table) publish(e effect) {
	number, renew := e.number, e.renew
	t.mu.Lock()
	s := t.state.sockets[number]
	if s == nil || s.phase != open {
		t.mu.Unlock()
		return
	}
	o := wire.Opening{
		Name: s.title(), Network: s.addr.Network, Policy: s.req.Policy, Peek: s.req.Peek, Functions: s.req.Functions,
		Limits: s.req.Limits, Credentials: s.req.Credentials, Paused: s.paused, Foreign: s.fromWorker || s.req.FD != 0, Renew: renew,
	}
	for owner := range s.owners {
		o.Pool = max(o.Pool, owner)
	}
	t.mu.Unlock()
	if t.waitForReopen(socketKey{number, 0}, e) {
		return
	}
	h, err := t.memberHandle(socketKey{number, 0})
	if err != nil && t.retryLater(e, err, 0) {
		return
	}
	if err != nil {
		t.cfg.Logger.Error("listening socket not sent to the listener process", "listener", o.Name, "err", err)
		return
	}
	t.send(t.listenerOutbox(), &fdipc.Frame{Kind: wire.KindOpen, Target: number, Payload: wire.Encode(o), Handles: []*fdipc.Handle{h}})
}

// pause tells the listener process whether a listener is to pause; or the worker that accepts
// itself.
func (t *Table) pause(number, worker uint64) {
	t.mu.Lock()
	s := t.state.sockets[number]
	k := wire.KindResume
	if s != nil && s.paused {
		k = wire.KindPause
	}
	o := t.listenerProcess
	if worker != 0 {
		o = t.workers[worker]
	}
	t.mu.Unlock()
	t.send(o, &fdipc.Frame{Kind: k, Target: number})
}

func (t *Table) workerOutbox(worker uint64) *outbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.workers[worker]
}

func (t *Table) listenerOutbox() *outbox {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listenerProcess
}

// send sends a control frame and does not wait.
func (t *Table) send(o *outbox, f *fdipc.Frame) {
	if o == nil {
		closeHandles(f)
		return
	}
	o.send(f)
}
