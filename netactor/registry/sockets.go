package registry

import (
	"errors"
	"maps"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// socketKey names a socket that the master holds: that of a listener, or one member of a ReusePort
// listener.
type socketKey struct {
	number uint64
	index  int
}

// Only the goroutine that works on todo calls the functions below.

// addSocket adds a socket to the Table and to its watcher.
func (t *Table) addSocket(key socketKey, s *socket.Bound) {
	t.sockets[key] = &heldSocket{Bound: s}
	t.keep(key, s)
	if t.watcher != nil {
		t.watcher.Add(s, key.number)
		return
	}
	t.watch(effect{kind: doWatch})
}

// watch starts the watcher and adds all sockets to it.
func (t *Table) watch(e effect) {
	if t.watcher != nil {
		return
	}
	w, err := socket.NewShutdownWatcher(func(number uint64) { t.step(func() []effect { return t.state.broken(number) }) })
	if err != nil {
		if !t.retryLater(e, err, 0) {
			t.cfg.Logger.Warn("cannot watch listening sockets for shutdowns", "err", err)
		}
		return
	}
	t.watcher = w
	t.ended.Go(w.Run) // ends with Close
	for key, s := range t.sockets {
		w.Add(s.Bound, key.number)
	}
}

// dropSocket closes a socket.
func (t *Table) dropSocket(key socketKey) {
	s := t.sockets[key]
	if s == nil {
		return
	}
	delete(t.sockets, key)
	if t.watcher != nil {
		t.watcher.Remove(s.Bound)
	}
	t.closeSocket(s.Bound)
}

// memberHandle returns a handle on a duplicate of a socket. It opens a further member of a
// ReusePort listener that is not open yet.
func (t *Table) memberHandle(key socketKey) (*fdipc.Handle, error) {
	s := t.sockets[key]
	if s == nil {
		t.mu.Lock()
		state := t.state.sockets[key.number]
		if state == nil || state.phase != open || state.req.Policy != netactor.ReusePort {
			t.mu.Unlock()
			return nil, errors.New("netactor: socket is closed")
		}
		r, share := state.req, state.key
		r.Address, r.Joins = state.boundAddress(), true
		t.mu.Unlock()
		opened, err := t.obtain(share, r)
		if err != nil {
			return nil, err
		}
		t.addSocket(key, opened)
		s = t.sockets[key]
	}
	if s.Closed() { // it would be opened again later; open it now
		if err := t.relisten(key, s); err != nil {
			return nil, err
		}
		s = t.sockets[key]
	}
	return s.Handle()
}

// repairState holds when a listener was last repaired, and the pause before its next repair.
type repairState struct {
	last  time.Time
	pause time.Duration // before the next repair
	armed bool          // the next repair is scheduled; guarded by Table.mu
}

const (
	firstRepair = 50 * time.Millisecond
	maxRepair   = 5 * time.Second
)

// repair makes a listener's sockets listen again after a process has shut them down. Each further
// repair lengthens the pause before the next. So a process that shuts a socket down again and
// again, or reports that it is shut down, does not keep the master busy.
func (t *Table) repair(number uint64) (then func() []effect) {
	r := t.repairs[number]
	now := time.Now()
	if r == nil || now.Sub(r.last) > 4*maxRepair {
		r = &repairState{pause: firstRepair}
		t.repairs[number] = r
	} else if wait := r.last.Add(r.pause).Sub(now); wait > 0 {
		t.repairLater(number, r, wait)
		return nil
	}
	again := !r.last.IsZero()
	r.last = now
	var err error
	reopening := false
	var evict []int // members that are packet sockets
	for key, s := range t.sockets {
		if key.number != number || s.reopening || !s.Closed() && s.Listening() {
			reopening = reopening || s.reopening
			continue
		}
		if s.IsPacket() {
			evict = append(evict, key.index)
		}
		e := t.relisten(key, s)
		err = errors.Join(err, e)
		reopening = reopening || s.reopening
		t.logs.Warn("a listening socket was shut down, listening again", "listener", t.title(number), "err", e)
	}
	if again {
		r.pause = min(2*r.pause, maxRepair)
	}
	if err != nil {
		t.repairLater(number, r, r.pause)
	}
	return func() (out []effect) {
		for _, index := range evict {
			out = append(out, t.state.evict(number, index)...)
		}
		if err == nil && !reopening {
			out = append(out, t.state.repaired(number)...)
		}
		return out
	}
}

// refuse makes a listener's sockets refuse clients.
func (t *Table) refuse(number uint64) {
	for key, s := range t.sockets {
		if key.number != number || s.Closed() || s.Kept != "" && t.ending() {
			continue
		}
		if err := s.Refuse(); err != nil {
			t.logs.Warn("a listening socket goes on to take clients, which no worker will serve", "listener", t.title(number), "err", err)
		}
	}
}

// admit makes a listener's sockets listen again.
func (t *Table) admit(number uint64) (then func() []effect) {
	t.mu.Lock()
	state := t.state.sockets[number]
	if state == nil {
		t.mu.Unlock()
		return nil
	}
	r := state.req
	r.Address = state.boundAddress()
	t.mu.Unlock()
	held := maps.Clone(t.sockets) // relisten replaces some
	maps.DeleteFunc(held, func(key socketKey, s *heldSocket) bool { return key.number != number || s.reopening })
	var err error
	for key, s := range held {
		if s.Closed() || s.Relisten(r) != nil {
			err = errors.Join(err, t.relisten(key, s))
		}
	}
	if err != nil {
		t.logs.Warn("a listening socket that refused clients cannot listen again yet", "listener", t.title(number), "err", err)
		repair := &repairState{pause: firstRepair, last: time.Now()}
		t.repairs[number] = repair
		t.repairLater(number, repair, firstRepair)
	}
	return func() []effect { return t.state.repaired(number) }
}

// repairLater schedules the repair of a listener after wait.
func (t *Table) repairLater(number uint64, r *repairState, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.armed || t.closed {
		return
	}
	r.armed = true
	time.AfterFunc(wait, func() { // owned by the Table: it does nothing after Close
		t.step(func() []effect {
			r.armed = false
			return t.state.broken(number)
		})
	})
}

// relisten makes a socket that stopped listening listen again. It replaces a socket that the master
// opened: the process that shut the old one down may do so again at any moment, and each connection
// accepted after that would be shut down from birth. It keeps a socket that was given to the
// master, because other programs may have it too, unless that cannot listen. It opens a Unix socket
// in the background, and reopened takes the result.
func (t *Table) relisten(key socketKey, s *heldSocket) error {
	t.mu.Lock()
	state := t.state.sockets[key.number]
	if state == nil {
		t.mu.Unlock()
		return nil
	}
	r := state.req
	r.Network, r.Address = state.addr.Network, state.addr.Address
	if state.req.FD == 0 {
		r.Network = state.req.Network
	}
	given := state.given()
	if !given {
		r.Address = state.boundAddress() // for a datagram group, the group's address; the socket itself does not return that
	}
	t.mu.Unlock()
	if given && s.Relisten(r) == nil {
		return nil
	}
	r.FD, r.Joins = 0, r.Policy == netactor.ReusePort
	t.dropSocket(key)  // its path and its port must be free
	t.sockets[key] = s // closed: the next repair tries again
	if address.IsLocal(r.Network) {
		t.reopenInBackground(key, s, r)
		return nil
	}
	fresh, err := socket.Open(r)
	if err != nil {
		return err
	}
	t.addSocket(key, fresh)
	return nil
}

func (t *Table) title(number uint64) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.state.sockets[number]; s != nil {
		return s.title()
	}
	return ""
}

// renew sends a worker its socket again.
func (t *Table) renew(e effect) {
	o := t.workerOutbox(e.worker)
	if o == nil {
		return
	}
	if t.waitForReopen(socketKey{e.number, e.groupIndex}, e) {
		return
	}
	h, err := t.memberHandle(socketKey{e.number, e.groupIndex})
	if err != nil && t.retryLater(e, err, 0) {
		return
	}
	if err != nil {
		t.cfg.Logger.Error("listening socket not sent to a worker", "listener", t.title(e.number), "err", err)
		return
	}
	t.send(o, &fdipc.Frame{Kind: wire.KindOpen, Target: e.number, Handles: []*fdipc.Handle{h}})
}
