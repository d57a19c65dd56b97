package netactor

import (
	"sync"
	"syscall"
	"time"
)

// A Unix socket is a file, and a file system need not answer: that of a server that has
// gone away does not. So whoever works on todo waits for none: it has such a socket opened,
// opened again and its file removed on other goroutines.

// aside does what has to do with files.
var files = fileWorker{queued: make(map[string][]func())}

// fileWorker have work done on goroutines of their own: in order for each path, so that none of it meets
// what is half done there.
type fileWorker struct {
	mu         sync.Mutex
	queued     map[string][]func() // by path: what comes after that which is being done
	removals   int                 // files that are to be removed
	allRemoved chan struct{}       // closed when there are none; nil if nothing waits for that
}

// do has work called when all is done that was given for the path before.
func (q *fileWorker) do(path string, work func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if next, busy := q.queued[path]; busy {
		q.queued[path] = append(next, work)
		return
	}
	q.queued[path] = nil
	go q.run(path, work) // ends when the file system answers
}

func (q *fileWorker) run(path string, work func()) {
	for {
		work()
		q.mu.Lock()
		next := q.queued[path]
		if len(next) == 0 {
			delete(q.queued, path)
			q.mu.Unlock()
			return
		}
		work, q.queued[path] = next[0], next[1:]
		q.mu.Unlock()
	}
}

// doRemoval has the file of a socket removed by work.
func (q *fileWorker) doRemoval(path string, work func()) {
	q.mu.Lock()
	q.removals++
	q.mu.Unlock()
	q.do(path, func() {
		work()
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.removals--; q.removals == 0 && q.allRemoved != nil {
			close(q.allRemoved)
			q.allRemoved = nil
		}
	})
}

const (
	removalTimeout = 100 * time.Millisecond // how long a caller waits for the files of what it has closed
	lastTimeout    = time.Second            // and at the end
)

// waitRemoved waits until no file is to be removed any more, or d is over.
func (q *fileWorker) waitRemoved(d time.Duration) {
	q.mu.Lock()
	if q.removals == 0 {
		q.mu.Unlock()
		return
	}
	if q.allRemoved == nil {
		q.allRemoved = make(chan struct{})
	}
	none := q.allRemoved
	q.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	}
}

// openInBackground opens the socket of a doOpen and enters the outcome into todo.
func (t *Table) openInBackground(e effect) {
	files.do(e.req.Address, func() {
		s, r := t.openRequested(e)
		if e.socket != nil {
			e.req = Request{} // it is gone, if it could not be taken
		}
		e.kind, e.socket, e.reply = doOpened, s, r
		t.step(func() []effect { return []effect{e} })
	})
}

// reopenState is that a Unix socket, which is closed, is opened again.
type reopenState struct {
	reopenNeeded bool     // another is to take its place
	reopening    bool     // and is being opened
	waiting      []effect // wait for it
}

// reopenInBackground opens a socket again in place of s, which is closed, and enters the outcome into todo.
func (t *Table) reopenInBackground(key socketKey, s *socket, r Request) {
	s.reopenNeeded, s.reopening = true, true
	files.do(r.Address, func() {
		fresh, err := newSocket(r)
		e := effect{kind: doReopened, number: key.number, groupIndex: key.index, socket: fresh, old: s}
		if err != nil {
			e.reply = failed(err)
		}
		t.step(func() []effect { return []effect{e} })
	})
}

// waitForReopen reports whether the socket that e is about is to be opened again first. Then e is done afterwards.
func (t *Table) waitForReopen(key socketKey, e effect) bool {
	s := t.sockets[key]
	if s == nil || !s.reopenNeeded {
		return false
	}
	e.tries = 0
	s.waiting = append(s.waiting, e)
	return true
}

// reopened takes in the outcome of reopenAside.
func (t *Table) reopened(e effect) (then func() []effect) {
	key, s, fresh := socketKey{e.number, e.groupIndex}, e.old, e.socket
	s.reopening = false
	switch {
	case t.sockets[key] != s: // closed meanwhile
		if fresh != nil {
			fresh.closeInBackground()
		}
		e.reply = reply{Errno: int(syscall.ECANCELED), Call: "listen"}
	case fresh != nil:
		t.addSocket(key, fresh)
		return func() []effect { return append(s.waiting, t.state.repaired(e.number)...) }
	default:
		t.logs.warn("a listening socket that was shut down cannot be opened again yet", "listener", t.title(e.number),
			"err", e.reply.err("", nil))
		r := t.repairs[e.number]
		t.repairLater(e.number, r, r.pause)
		if isShortage(syscall.Errno(e.reply.Errno)) {
			return nil
		}
	}
	after := s.waiting
	s.waiting = nil
	return func() []effect { return t.failWaiting(after, e.reply) }
}

// failWaiting answers those that waited for a socket which does not come. It is called under the lock.
func (t *Table) failWaiting(after []effect, r reply) (out []effect) {
	for _, e := range after {
		if e.kind != doReply {
			continue // it comes again with the socket, if that does
		}
		out = append(out, effect{kind: doReply, request: e.request, reply: r})
		out = append(out, t.state.closed(e.request.worker, e.number)...)
	}
	return out
}
