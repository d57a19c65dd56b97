package coppice

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// httpDrain ends an *http.Server without closing a connection in its client's
// face. http.Server.Shutdown closes idle connections at once, and so does
// SetKeepAlivesEnabled(false): a client that has just written its next request
// gets a reset. Here an idle connection stays, answers one more request with
// "Connection: close", and is closed when its client has not asked for most of
// the wait. Those are closed a few at a time, so that thousands of them are gone before
// the drain's deadline also where the processors are busy.
//
// HTTP/2 has a frame for it, GOAWAY, which every connection gets as the drain
// begins. One that becomes HTTP/2 only then has a request on its way: it gets its
// GOAWAY with the first answer, or, when it does not ask, of the Shutdown that
// follows. So do all of an HTTP/2 that the user has set up himself.
type httpDrain struct {
	inner    http.Handler
	force    func(n int) // counts connections that are closed in their clients' faces
	count    func(n int) // counts requests
	goaway   goaway
	draining atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]http.ConnState // HTTP/1, and those that have not said yet what they are
	over  bool                        // nobody waits any more: what becomes idle is closed
	empty chan struct{}               // one token: conns may be empty
}

// connKey is the context key under which a request finds its connection.
type connKey struct{}

// drainHTTP puts a drain between s and its handler. It changes s, which must not
// serve yet; the hooks of the user's are called as before.
func drainHTTP(s *http.Server, force, count func(n int)) *httpDrain {
	d := &httpDrain{inner: s.Handler, force: force, count: count, conns: map[net.Conn]http.ConnState{}, empty: make(chan struct{}, 1)}
	if d.inner == nil {
		d.inner = http.DefaultServeMux
	}
	s.Handler = d
	connState, connContext := s.ConnState, s.ConnContext
	s.ConnState = func(c net.Conn, st http.ConnState) {
		d.note(c, st)
		if connState != nil {
			connState(c, st)
		}
	}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		return context.WithValue(ctx, connKey{}, c)
	}
	d.goaway = separate(s, d.forget)
	return d
}

// ServeHTTP asks the client of a draining connection to open another one. A
// handler may overwrite it, as it may without us.
func (d *httpDrain) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor >= 2 { // here at the latest it shows, with whatever HTTP/2
		if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			d.forget(c)
		}
	}
	if d.draining.Load() {
		rw.Header().Set("Connection", "close") // of HTTP/2 too: net/http sends GOAWAY for it
	}
	defer d.count(1) // a handler that panics has served, too
	d.inner.ServeHTTP(rw, r)
}

// note takes a connection's change of state, on the connection's goroutine.
func (d *httpDrain) note(c net.Conn, st http.ConnState) {
	switch st {
	case http.StateHijacked, http.StateClosed:
		d.forget(c)
		return
	case http.StateNew, http.StateActive, http.StateIdle:
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.conns[c]; known || st == http.StateNew { // else it is HTTP/2
		d.conns[c] = st
		if d.over && st == http.StateIdle {
			d.force(1)
		}
	}
}

// forget takes a connection out: it has ended, been taken over, or is HTTP/2.
func (d *httpDrain) forget(c net.Conn) {
	d.mu.Lock()
	delete(d.conns, c)
	none := len(d.conns) == 0
	d.mu.Unlock()
	if none {
		d.signal()
	}
}

func (d *httpDrain) signal() {
	select {
	case d.empty <- struct{}{}:
	default:
	}
}

// begin has every further response ask its client to open another connection, and
// tells those of HTTP/2 now.
func (d *httpDrain) begin() {
	d.draining.Store(true)
	d.goaway.send()
}

// fadeEvery is the pause between two rounds in which idle connections are closed. Each round
// closes fadeLeast, or a fadeShare of those that are left if that is more: 10,000 in 2 s.
const (
	idleCloseEvery = 50 * time.Millisecond
	idleCloseShare = 8
	idleCloseLeast = 32
)

// closeIdle waits until every HTTP/1 connection has gone of itself, or idle ends. From the end of
// fade on it closes those that have no request, bit by bit. What has none at the end of idle is counted and
// closed, by it or by the Shutdown that follows.
func (d *httpDrain) closeIdle(fade, idle context.Context) {
	fading := fade.Done()
	var round <-chan time.Time
	for {
		d.mu.Lock()
		n := len(d.conns)
		d.mu.Unlock()
		if n == 0 {
			d.signal() // for others that wait
			return
		}
		select {
		case <-d.empty:
		case <-fading:
			fading = nil
			ticker := time.NewTicker(idleCloseEvery)
			defer ticker.Stop()
			round = ticker.C
		case <-round:
			d.cutSome(max(idleCloseLeast, n/idleCloseShare))
		case <-idle.Done():
			d.cutIdle()
			return
		}
	}
}

// cutSome closes up to n connections that have no request, and counts them. One of which
// there is something to read is about to have one.
func (d *httpDrain) cutSome(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c, st := range d.conns {
		if n == 0 {
			return
		}
		if (st == http.StateIdle || st == http.StateNew) && !readable(c) {
			closeBelow(c)
			d.force(1)
			delete(d.conns, c)
			n--
		}
	}
	if len(d.conns) == 0 {
		d.signal()
	}
}

func (d *httpDrain) cutIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	d.over = true
	for c, st := range d.conns {
		switch st {
		case http.StateNew, http.StateIdle: // Shutdown would wait 5 s for a new one's request
			closeBelow(c)
			d.force(1)
		case http.StateActive, http.StateClosed, http.StateHijacked:
		}
	}
}

// closeBelow closes what is below c: the close of a tls.Conn waits, up to 5 s, for a client that
// does not read. That of c, by package http, finds it closed.
func closeBelow(c net.Conn) {
	for b := below(c); b != nil; b = below(b) {
		c = b
	}
	_ = c.Close()
}

// below returns what a wrapper of a connection wraps, if it says so as tls.Conn does; nil otherwise.
func below(c net.Conn) net.Conn {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return nil
}
