package registry

import (
	"syscall"

	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// openInBackground opens the socket of a doOpen and adds the result to todo.
func (t *Table) openInBackground(e effect) {
	socket.Files.Do(e.req.Address, func() {
		s, r := t.openRequested(e)
		if e.socket != nil {
			e.req = socket.SocketSpec{} // the socket is closed if it could not be taken
		}
		e.kind, e.socket, e.reply = doOpened, s, r
		t.step(func() []effect { return []effect{e} })
	})
}

// heldSocket is a socket that the Table holds. A Unix socket that was shut down is closed and
// opened again in the background.
type heldSocket struct {
	*socket.Bound
	reopenNeeded bool     // a new socket must replace it
	reopening    bool     // the new socket is being opened
	waiting      []effect // performed once it is open
}

// reopenInBackground opens a socket to replace s, which is closed, and adds the result to todo.
func (t *Table) reopenInBackground(key socketKey, s *heldSocket, r socket.SocketSpec) {
	s.reopenNeeded, s.reopening = true, true
	socket.Files.Do(r.Address, func() {
		fresh, err := socket.Open(r)
		e := effect{kind: doReopened, number: key.number, groupIndex: key.index, socket: fresh, old: s}
		if err != nil {
			e.reply = wire.Failed(err)
		}
		t.step(func() []effect { return []effect{e} })
	})
}

// waitForReopen reports whether e waits because its socket must be opened again first. Then e is
// performed afterwards.
func (t *Table) waitForReopen(key socketKey, e effect) bool {
	s := t.sockets[key]
	if s == nil || !s.reopenNeeded {
		return false
	}
	e.tries = 0
	s.waiting = append(s.waiting, e)
	return true
}

// reopened takes the result of reopenInBackground.
func (t *Table) reopened(e effect) (then func() []effect) {
	key, s, fresh := socketKey{e.number, e.groupIndex}, e.old, e.socket
	s.reopening = false
	switch {
	case t.sockets[key] != s: // it was closed while being opened
		if fresh != nil {
			fresh.CloseInBackground()
		}
		e.reply = wire.ListenReply{Errno: int(syscall.ECANCELED), Call: "listen"}
	case fresh != nil:
		t.addSocket(key, fresh)
		return func() []effect { return append(s.waiting, t.state.repaired(e.number)...) }
	default:
		t.logs.Warn("a listening socket that was shut down cannot be opened again yet", "listener", t.title(e.number),
			"err", e.reply.Err("", nil))
		r := t.repairs[e.number]
		t.repairLater(e.number, r, r.pause)
		if faults.IsShortage(syscall.Errno(e.reply.Errno)) {
			return nil
		}
	}
	after := s.waiting
	s.waiting = nil
	return func() []effect { return t.failWaiting(after, e.reply) }
}

// failWaiting answers the requests that waited for a socket that will not come, with r. It is
// called under the lock.
func (t *Table) failWaiting(after []effect, r wire.ListenReply) (out []effect) {
	for _, e := range after {
		if e.kind != doReply {
			continue // it is performed again if the socket opens after all
		}
		out = append(out, effect{kind: doReply, request: e.request, reply: r})
		out = append(out, t.state.closed(e.request.worker, e.number)...)
	}
	return out
}
