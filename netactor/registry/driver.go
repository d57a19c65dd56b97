package registry

import (
	"slices"
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// step changes the state by f, under the lock, and then performs the effects, without the lock.
// Effects are performed in order and by one goroutine at a time. A goroutine that comes while
// another works on todo only adds its effects there. A Table that is suspended holds them back; one
// that is restored opens what Open asks for, because the trial of an image ends with its listeners.
func (t *Table) step(f func() []effect) {
	t.mu.Lock()
	t.todo = append(t.todo, f()...)
	if t.busy {
		t.mu.Unlock()
		return
	}
	t.busy = true
	for {
		i := t.nextLocked()
		if i < 0 {
			break
		}
		e := t.todo[i]
		if i == 0 {
			t.todo = t.todo[1:]
		} else {
			t.todo = slices.Delete(t.todo, i, i+1)
		}
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

// nextLocked returns the index of the next effect in todo; -1 if there is none to perform now.
func (t *Table) nextLocked() int {
	return slices.IndexFunc(t.todo, func(e effect) bool {
		switch {
		case !t.suspended:
			return true
		case t.restored == nil:
			return false
		case e.kind == doReply:
			return e.request.worker == 0
		}
		s := t.state.sockets[e.number]
		return (e.kind == doOpen || e.kind == doOpened) && s != nil && slices.ContainsFunc(s.waiting, func(p pendingRequest) bool { return p.worker == 0 })
	})
}

// perform does one effect. The caller calls the function that it returns, if any, under the lock.
func (t *Table) perform(e effect) (then func() []effect) {
	isAside := e.kind == doOpen && address.IsLocal(e.req.Network) && (e.tries == 0 || t.isPending(e.number))
	if e.tries > 0 && !isAside { // otherwise doOpened ends the try
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
			return nil // no request waits for it any more
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
	case doRefuse:
		t.refuse(e.number)
	case doAdmit:
		return t.admit(e.number)
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
			if !s.reopening { // otherwise reopened handles them
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
			t.logs.Warn("closed the socket of a worker that is not replaced: its queued datagrams are lost", "listener", t.title(e.number))
		} else if !socket.Migrates() {
			t.logs.Warn("closed the socket of a worker that is not replaced: connections in its backlog are reset, because net.ipv4.tcp_migrate_req is 0",
				"listener", t.title(e.number))
		}
		t.dropSocket(socketKey{e.number, e.groupIndex})
	case doNoteName:
		t.mu.Lock()
		s := t.state.sockets[e.number]
		t.mu.Unlock()
		if s != nil {
			t.logs.Warn("two listeners have one address: they are one socket, whose connections go to the workers of both",
				"listener", s.title(), "also", e.request.req.Name, "addr", s.addr.Address)
		}
	case doCopy:
		h, err := t.memberHandle(socketKey{e.number, 0})
		if err != nil {
			e.copied <- copied{nil, err} // capacity 1, and this is the only value
			return nil
		}
		f, err := h.File()
		e.copied <- copied{f, err}
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
		s, err = t.obtain(e.key, e.req)
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

// isPending reports whether a socket has yet to be opened.
func (t *Table) isPending(number uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state.sockets[number]
	return s != nil && s.phase == pending
}

// opened takes the socket of a doOpen; nil if it could not be opened.
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
		if closed { // while the socket was being opened
			t.closeSocket(s)
			return nil
		}
		t.addSocket(socketKey{number, 0}, s)
		said := []any{"network", r.Network, "addr", r.Address}
		if e.req.Name != "" {
			said = append([]any{"listener", e.req.Name}, said...)
		}
		t.cfg.Logger.Info("listening", said...)
	}
	return func() []effect { return t.state.opened(number, r) }
}

// sendReply sends a reply, with the socket if the worker accepts on it itself.
func (t *Table) sendReply(e effect) {
	p := e.request
	if p.worker == 0 {
		t.opens.Finish(p.seq, e.reply, nil)
		return
	}
	f := &fdipc.Frame{Kind: wire.KindReply, Target: p.seq}
	if e.reply.Denied != "" {
		t.logs.Warn("refused a worker's listen: it is neither a listener of the tree nor in Pool.Listen",
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

// publish sends a socket to the listener process. If e.renew is set, it replaces the socket that
// the listener process has.
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
		Limits: s.req.Limits, Credentials: s.req.Credentials, Paused: s.paused, Refuses: s.refusing, Foreign: s.given(), Renew: renew,
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

// pause tells the listener process to pause or resume a listener; or worker, if it is not 0 and
// accepts itself.
func (t *Table) pause(number, worker uint64) {
	t.mu.Lock()
	s := t.state.sockets[number]
	k := wire.KindResume
	var how []byte
	switch {
	case s == nil:
	case s.refusing:
		k, how = wire.KindPause, []byte{wire.PauseRefuses}
	case s.paused:
		k = wire.KindPause
	}
	o := t.listenerProcess
	if worker != 0 {
		o = t.workers[worker]
	}
	t.mu.Unlock()
	t.send(o, &fdipc.Frame{Kind: k, Target: number, Payload: how})
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
