package netactor

import (
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A Unix socket is a file, and a file system need not answer: that of a server that has
// gone away does not. So whoever works on todo does not wait for one: it opens such a
// socket on another goroutine, and has the rest done in time or not at all.

// onFile reports whether the socket of r has a file.
func (r Request) onFile() bool { return local(r.Network) && !strings.HasPrefix(r.Address, "@") }

// openAside opens the socket of a doOpen and enters the outcome into todo.
func (t *Table) openAside(e effect) {
	s, r := t.openSocket(e)
	if e.given != nil {
		e.req = Request{} // it is gone, if it could not be taken
	}
	e.do, e.given, e.reply = doOpened, s, r
	t.step(func() []effect { return []effect{e} })
}

// fileTimeout is how long a file system has to answer.
const fileTimeout = time.Second

// late is how much inTime does not wait for any more.
var late atomic.Int64

// inTime calls work, and reports whether it has returned in time. It goes on otherwise,
// on a goroutine of its own. While one is late, nobody waits for others.
func inTime(work func()) bool {
	done := make(chan struct{})
	go func() { // ends when the file system answers
		defer close(done)
		work()
	}()
	wait := fileTimeout
	if late.Load() > 0 {
		wait = 0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	late.Add(1)
	go func() { // ends with work
		<-done
		late.Add(-1)
	}()
	return false
}

// openInTime is openSocket, but for a file system that does not answer: what it opens
// later is closed.
func openInTime(r Request) (*socket, error) {
	if !r.onFile() {
		return openSocket(r)
	}
	type outcome struct {
		s   *socket
		err error
	}
	out := make(chan outcome, 1)
	if inTime(func() {
		s, err := openSocket(r)
		out <- outcome{s, err}
	}) {
		o := <-out
		return o.s, o.err
	}
	go func() { // ends when the file system answers
		if o := <-out; o.err == nil {
			o.s.close()
		}
	}()
	return nil, os.NewSyscallError("bind", syscall.ETIMEDOUT)
}
