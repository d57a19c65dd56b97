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
var aside = queues{work: make(map[string][]func())}

// queues have work done on goroutines of their own: in order for each path, so that none of it meets
// what is half done there.
type queues struct {
	mu       sync.Mutex
	work     map[string][]func() // by path: what comes after that which is being done
	removing int                 // files that are to be removed
	none     chan struct{}       // closed when there are none; nil if nothing waits for that
}

// do has work called when all is done that was given for the path before.
func (q *queues) do(path string, work func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if next, busy := q.work[path]; busy {
		q.work[path] = append(next, work)
		return
	}
	q.work[path] = nil
	go q.run(path, work) // ends when the file system answers
}

func (q *queues) run(path string, work func()) {
	for {
		work()
		q.mu.Lock()
		next := q.work[path]
		if len(next) == 0 {
			delete(q.work, path)
			q.mu.Unlock()
			return
		}
		work, q.work[path] = next[0], next[1:]
		q.mu.Unlock()
	}
}

// remove has the file of a socket removed by work.
func (q *queues) remove(path string, work func()) {
	q.mu.Lock()
	q.removing++
	q.mu.Unlock()
	q.do(path, func() {
		work()
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.removing--; q.removing == 0 && q.none != nil {
			close(q.none)
			q.none = nil
		}
	})
}

const (
	removalTimeout = 100 * time.Millisecond // how long a caller waits for the files of what it has closed
	lastTimeout    = time.Second            // and at the end
)

// removed waits until no file is to be removed any more, or d is over.
func (q *queues) removed(d time.Duration) {
	q.mu.Lock()
	if q.removing == 0 {
		q.mu.Unlock()
		return
	}
	if q.none == nil {
		q.none = make(chan struct{})
	}
	none := q.none
	q.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	}
}

// openAside opens the socket of a doOpen and enters the outcome into todo.
func (t *Table) openAside(e effect) {
	aside.do(e.req.Address, func() {
		s, r := t.openSocket(e)
		if e.given != nil {
			e.req = Request{} // it is gone, if it could not be taken
		}
		e.do, e.given, e.reply = doOpened, s, r
		t.step(func() []effect { return []effect{e} })
	})
}

// mending is that a Unix socket, which is closed, is opened again.
type mending struct {
	needed bool     // another is to take its place
	now    bool     // and is being opened
	after  []effect // wait for it
}

// reopenAside opens a socket again in place of s, which is closed, and enters the outcome into todo.
func (t *Table) reopenAside(key memberKey, s *socket, r Request) {
	s.needed, s.now = true, true
	aside.do(r.Address, func() {
		fresh, err := openSocket(r)
		e := effect{do: doReopened, number: key.number, member: key.index, given: fresh, old: s}
		if err != nil {
			e.reply = failed(err)
		}
		t.step(func() []effect { return []effect{e} })
	})
}

// waitsFor reports whether the socket that e is about is to be opened again first. Then e is done afterwards.
func (t *Table) waitsFor(key memberKey, e effect) bool {
	s := t.sockets[key]
	if s == nil || !s.needed {
		return false
	}
	e.tries = 0
	s.after = append(s.after, e)
	return true
}

// reopened takes in the outcome of reopenAside.
func (t *Table) reopened(e effect) (then func() []effect) {
	key, s, fresh := memberKey{e.number, e.member}, e.old, e.given
	s.now = false
	switch {
	case t.sockets[key] != s: // closed meanwhile
		if fresh != nil {
			fresh.closeAside()
		}
		e.reply = reply{Errno: int(syscall.ECANCELED), Call: "listen"}
	case fresh != nil:
		t.keep(key, fresh)
		return func() []effect { return append(s.after, t.state.repaired(e.number)...) }
	default:
		t.gate.warn("a listening socket that was shut down cannot be opened again yet", "listener", t.title(e.number),
			"err", e.reply.err("", nil))
		r := t.repairs[e.number]
		t.later(e.number, r, r.pause)
		if shortage(syscall.Errno(e.reply.Errno)) {
			return nil
		}
	}
	after := s.after
	s.after = nil
	return func() []effect { return t.unserved(after, e.reply) }
}

// unserved answers those that waited for a socket which does not come. It is called under the lock.
func (t *Table) unserved(after []effect, r reply) (out []effect) {
	for _, e := range after {
		if e.do != doReply {
			continue // it comes again with the socket, if that does
		}
		out = append(out, effect{do: doReply, ask: e.ask, reply: r})
		out = append(out, t.state.closed(e.ask.worker, e.number)...)
	}
	return out
}
