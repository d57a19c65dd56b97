package netactor

import (
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
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
	isAside := e.do == doOpen && local(e.req.Network) && (e.tries == 0 || t.pending(e.number))
	if e.tries > 0 && !isAside { // then doOpened is the end of the try
		t.waiting--
		defer t.retried()
	}
	switch e.do {
	case doOpen:
		if isAside {
			t.openAside(e)
			return nil
		}
		if e.tries > 0 && !t.pending(e.number) {
			return nil // nothing waits for it any more
		}
		s, r := t.openSocket(e)
		return t.opened(e, s, r)
	case doOpened:
		return t.opened(e, e.given, e.reply)
	case doReopened:
		return t.reopened(e)
	case doReply:
		t.answer(e)
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
		if t.hangups != nil {
			t.hangups.close()
			t.hangups = nil
		}
	case doShut:
		t.tell(t.listenerConn(), &fdipc.Frame{Kind: KindShut, Target: e.number})
	case doTell:
		t.tell(t.conn(e.worker), &fdipc.Frame{Kind: KindShut, Target: e.number})
	case doClose:
		var after []effect
		for key, s := range t.sockets {
			if key.number != e.number {
				continue
			}
			if !s.now { // or reopened sees to them
				after = append(after, s.after...)
			}
			t.drop(key)
		}
		delete(t.repairs, e.number)
		return func() []effect { return t.unserved(after, reply{Errno: int(syscall.ECANCELED), Call: "listen"}) }
	case doRetire:
		if s := t.sockets[memberKey{e.number, e.member}]; s != nil && s.packets() {
			t.gate.warn("the socket of a worker that is not replaced is closed: what is queued in it is lost", "listener", t.title(e.number))
		} else if !migrates() {
			t.gate.warn("the socket of a worker that is not replaced is closed: what waits in its backlog is reset, for net.ipv4.tcp_migrate_req is 0",
				"listener", t.title(e.number))
		}
		t.drop(memberKey{e.number, e.member})
	case doDiscard:
		e.given.closeAside()
	}
	return nil
}

// openSocket opens or takes the socket of a doOpen.
func (t *Table) openSocket(e effect) (*socket, reply) {
	var s *socket
	var err error
	if e.given == nil {
		s, err = openSocket(e.req)
	} else {
		if s, err = e.given.applied(e.req); err == nil {
			s.adopt()
		}
	}
	if err != nil {
		return nil, failed(err)
	}
	network, address, err := s.address()
	if err != nil {
		s.close()
		return nil, failed(err)
	}
	if local(e.req.Network) {
		address = e.req.Address // the kernel knows a long path by a shorter name
	}
	return s, reply{Network: network, Address: address}
}

// pending reports whether a socket is to be opened still.
func (t *Table) pending(number uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state.sockets[number]
	return s != nil && s.phase == pending
}

// opened takes in the socket of a doOpen, nil if there is none.
func (t *Table) opened(e effect, s *socket, r reply) (then func() []effect) {
	number := e.number
	if s == nil && e.own() {
		e.do, e.reply = doOpen, reply{}
		if t.again(e, syscall.Errno(r.Errno), maxTries) {
			return nil
		}
	}
	if s != nil {
		t.mu.Lock()
		closed := t.closed
		t.mu.Unlock()
		if closed { // while it was being opened
			s.closeAside()
			return nil
		}
		t.keep(memberKey{number, 0}, s)
	}
	return func() []effect { return t.state.opened(number, r) }
}

// answer sends a reply, with the socket if the worker is to accept itself.
func (t *Table) answer(e effect) {
	a := e.ask
	if a.worker == 0 {
		t.mu.Lock()
		ch := t.waits[a.seq]
		delete(t.waits, a.seq)
		t.mu.Unlock()
		if ch != nil {
			ch <- e.reply // capacity 1, and the only one
		}
		return
	}
	f := &fdipc.Frame{Kind: KindReply, Target: a.seq}
	if e.reply.Denied != "" {
		t.gate.warn("a worker asks for what its pool may not listen on: neither a listener of the tree nor in Pool.Listen",
			"pool", a.owner, "worker", a.worker, "asked", e.reply.Denied)
	}
	if e.reply.Errno == 0 && !e.reply.Policy.dispatched() {
		if t.waitsFor(memberKey{e.number, e.member}, e) {
			return
		}
		h, err := t.member(memberKey{e.number, e.member})
		if err != nil && t.again(e, err, maxTries) {
			return
		}
		if err != nil {
			e.reply = failed(err)
			t.mu.Lock()
			t.todo = append(t.todo, t.state.closed(a.worker, e.number)...)
			t.mu.Unlock()
		} else {
			f.Handles = []*fdipc.Handle{h}
		}
	}
	f.Payload = encode(e.reply)
	t.tell(t.conn(a.worker), f)
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
	o := opening{
		Name: s.title(), Network: s.addr.Network, Policy: s.req.Policy, Peek: s.req.Peek, Functions: s.req.Functions,
		Limits: s.req.Limits, Credentials: s.req.Credentials, Paused: s.paused, Foreign: s.given || s.req.FD != 0, Renew: renew,
	}
	for owner := range s.owners {
		o.Pool = max(o.Pool, owner)
	}
	t.mu.Unlock()
	if t.waitsFor(memberKey{number, 0}, e) {
		return
	}
	h, err := t.member(memberKey{number, 0})
	if err != nil && t.again(e, err, 0) {
		return
	}
	if err != nil {
		t.cfg.Logger.Error("listening socket not sent to the listener process", "listener", o.Name, "err", err)
		return
	}
	t.tell(t.listenerConn(), &fdipc.Frame{Kind: KindOpen, Target: number, Payload: encode(o), Handles: []*fdipc.Handle{h}})
}

// pause tells the listener process whether a listener is to pause; or the worker that accepts
// itself.
func (t *Table) pause(number, worker uint64) {
	t.mu.Lock()
	s := t.state.sockets[number]
	k := KindResume
	if s != nil && s.paused {
		k = KindPause
	}
	p := t.listener
	if worker != 0 {
		p = t.conns[worker]
	}
	t.mu.Unlock()
	t.tell(p, &fdipc.Frame{Kind: k, Target: number})
}

func (t *Table) conn(worker uint64) *post {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.conns[worker]
}

func (t *Table) listenerConn() *post {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.listener
}

// tell sends a control frame and does not wait.
func (t *Table) tell(p *post, f *fdipc.Frame) {
	if p == nil {
		closeHandles(f)
		return
	}
	p.send(f)
}
