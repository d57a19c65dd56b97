package httpdrain

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Drain ends an *http.Server without closing a connection whose client is about to use it.
//
// http.Server.Shutdown closes idle connections at once, and so does SetKeepAlivesEnabled(false): a
// client that has just written its next request gets a reset. Under a Drain an idle connection
// stays open, answers one more request with "Connection: close", and is closed only when its client
// has sent no request for most of the wait. A few are closed at a time, so that even thousands are
// closed before the drain's deadline on a busy machine.
//
// HTTP/2 has a frame for this, GOAWAY. Every HTTP/2 connection gets it as the drain begins. A
// connection that becomes HTTP/2 later has a request on its way: it gets GOAWAY with the first
// answer, or from the Shutdown that follows. The same goes for an HTTP/2 that the user has set up.
type Drain struct {
	inner    http.Handler
	force    func(n int, asked bool) // counts connections that are closed without an answer; asked: with a request
	count    func(n int)             // counts requests
	gate     Gate
	served   func(took time.Duration, failed bool) // nil = not measured
	timed    map[net.Conn]*Timed                   // guarded by mu: of connections that are open; nil = requests are not timed
	goaway   goaway
	draining atomic.Bool
	parking  atomic.Bool // a movable connection goes on elsewhere: its client need not be told

	mu    sync.Mutex
	conns map[net.Conn]*httpConn // HTTP/1, and connections whose protocol is not known yet
	over  bool                   // CloseIdle has returned: what becomes idle is closed
	empty chan struct{}          // one token: conns may be empty

	server *http.Server
	before fields        // of the server
	uses   int           // guarded by mu: Retain without Release
	open   int           // guarded by mu: connections, of any protocol, that have not ended
	ended  chan struct{} // one token: open may be 0
}

// fields are what a Drain changes of a server.
type fields struct {
	handler      http.Handler
	connState    func(net.Conn, http.ConnState)
	connContext  func(context.Context, net.Conn) context.Context
	tlsNextProto map[string]func(*http.Server, *tls.Conn, http.Handler)
	tlsConfig    *tls.Config
}

// httpConn is what is known of a connection.
type httpConn struct {
	http.ConnState

	looked   bool   // by closeSome, when the kernel had received that many bytes
	received uint64 // 0 where the kernel does not say
}

// A Gate judges requests before their handler sees them. Its methods may be called by any
// goroutine; they must not block.
type Gate interface {
	// Begin notes a request and returns a number for End, or why the request is refused. t is nil
	// without Time.
	Begin(r *http.Request, t *Timed) (n int, refused string)

	// End is called when the handler has returned, or panicked.
	End(n int)

	// Extend gives a request d until its first deadline; negative = for ever. It reports whether n
	// is one.
	Extend(n int, id int64, d time.Duration) bool
}

// connKey is the context key under which a request finds its connection.
type connKey struct{}

// New puts a Drain between s and its handler. It changes s, which must not serve yet, until the
// last Release. The user's hooks are called as before. conf, if not nil, stands for s.TLSConfig,
// and connContext for an s.ConnContext that is nil. force and count are called for connections
// that are closed without an answer (asked: bytes of their clients lie there unread), and for
// requests, on any goroutine; they must not block.
func New(s *http.Server, conf *tls.Config, connContext func(context.Context, net.Conn) context.Context, force func(n int, asked bool), count func(n int), gate Gate) *Drain {
	d := &Drain{
		inner: s.Handler, force: force, count: count, gate: gate, conns: map[net.Conn]*httpConn{}, empty: make(chan struct{}, 1),
		server: s, before: fields{s.Handler, s.ConnState, s.ConnContext, s.TLSNextProto, s.TLSConfig}, ended: make(chan struct{}, 1),
	}
	if d.inner == nil {
		d.inner = http.DefaultServeMux
	}
	s.Handler = d
	if conf != nil {
		s.TLSConfig = conf
	}
	connState := s.ConnState
	if s.ConnContext != nil {
		connContext = s.ConnContext
	}
	s.ConnState = func(c net.Conn, st http.ConnState) {
		d.note(c, st)
		d.noteTimed(c, st)
		if connState != nil {
			connState(c, st)
		}
		if st != http.StateActive && st != http.StateIdle { // most are
			d.account(st) // its goroutine does not read s after this
		}
	}
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		if d.timed != nil {
			ctx = d.timeConn(ctx, c)
		}
		return context.WithValue(ctx, connKey{}, c)
	}
	d.goaway = separate(s, d.forget)
	return d
}

// Retain notes a user of the Drain.
func (d *Drain) Retain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uses++
}

// Release undoes one Retain. After the last, if no connection is open, it gives the server back the
// fields that it had before New, and reports whether it did: the Drain is then of no more use.
// Connections that are open read the fields, which stay as they are.
func (d *Drain) Release() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.uses--
	if d.uses > 0 || d.open > 0 {
		return false
	}
	s, was := d.server, d.before
	s.Handler, s.ConnState, s.ConnContext = was.handler, was.connState, was.connContext
	s.TLSNextProto, s.TLSConfig = was.tlsNextProto, was.tlsConfig
	return true
}

// AwaitConns waits until no connection is open, or ctx ends.
func (d *Drain) AwaitConns(ctx context.Context) {
	for {
		d.mu.Lock()
		open := d.open
		d.mu.Unlock()
		if open == 0 {
			d.tell(d.ended) // for other calls that wait
			return
		}
		select {
		case <-d.ended:
		case <-ctx.Done():
			return
		}
	}
}

// account counts the connections that are open.
func (d *Drain) account(st http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch st {
	case http.StateNew:
		d.open++
	case http.StateHijacked, http.StateClosed:
		d.open--
		if d.open == 0 {
			d.tell(d.ended)
		}
	case http.StateActive, http.StateIdle:
	}
}

// ServeHTTP asks the client of a draining connection to open another one. A handler may set another
// Connection header, as it may without a Drain.
func (d *Drain) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor >= 2 { // any HTTP/2 is seen here at the latest
		if c, ok := r.Context().Value(connKey{}).(net.Conn); ok {
			d.forget(c)
		}
	}
	defer d.count(1) // also when the handler panics
	if !d.draining.Load() || d.parking.Load() && parks(r) {
		d.serve(rw, r)
		return
	}
	rw, last := closing(rw)
	d.serve(rw, r)
	last.mark() // for a handler that has written nothing
}

func (d *Drain) serve(rw http.ResponseWriter, r *http.Request) {
	var t *Timed
	if d.timed != nil {
		t, rw, r = d.timedOf(rw, r)
		defer t.done()
	}
	n, refused := d.gate.Begin(r, t)
	if refused != "" {
		http.Error(rw, refused, http.StatusServiceUnavailable)
		return
	}
	defer d.gate.End(n)
	if d.served == nil || len(r.Header["Upgrade"]) > 0 {
		d.inner.ServeHTTP(rw, r)
		return
	}
	d.serveMeasured(rw, r)
}

// movable is a connection that can go on elsewhere between two requests: see
// netactor.ParkableConn.
type movable interface {
	Idle()
	Parks() bool
	Stay()
}

// parks reports whether the connection of r can go on elsewhere.
func parks(r *http.Request) bool {
	c, ok := r.Context().Value(connKey{}).(movable)
	return ok && c.Parks() && r.ProtoMajor < 2
}

// note handles a connection's change of state, on the connection's goroutine.
func (d *Drain) note(c net.Conn, st http.ConnState) {
	switch st {
	case http.StateHijacked, http.StateClosed:
		d.forget(c)
		return
	case http.StateNew, http.StateActive, http.StateIdle:
	}
	d.mu.Lock()
	state := d.conns[c]
	if state == nil && st == http.StateNew {
		state = new(httpConn)
		d.conns[c] = state
	}
	if state != nil { // else it is HTTP/2
		state.ConnState = st
		if d.over && st == http.StateIdle {
			d.force(1, false)
		}
	}
	d.mu.Unlock()
	if state == nil || st == http.StateActive {
		return
	}
	if p, ok := c.(movable); ok {
		p.Idle()
	}
}

// forget takes a connection out: it ended, was hijacked, or is HTTP/2.
func (d *Drain) forget(c net.Conn) {
	if p, ok := c.(movable); ok {
		p.Stay()
	}
	d.mu.Lock()
	delete(d.conns, c)
	none := len(d.conns) == 0
	d.mu.Unlock()
	if none {
		d.signal()
	}
}

func (d *Drain) signal() { d.tell(d.empty) }

// tell puts a token into a channel that holds one.
func (d *Drain) tell(token chan<- struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// Handler returns the handler that the server had before.
func (d *Drain) Handler() http.Handler { return d.inner }

// Begun reports whether Begin has been called.
func (d *Drain) Begun() bool { return d.draining.Load() }

// Begin makes every further response ask its client to open another connection, and sends GOAWAY on
// HTTP/2 connections. If parking is set, the answers on connections that can go on elsewhere ask it
// only from the end of CloseIdle's grace on.
func (d *Drain) Begin(parking bool) {
	d.parking.Store(parking)
	d.draining.Store(true)
	d.goaway.send()
}

// Idle connections are closed in rounds, idleCloseEvery apart. A round closes MinIdleClose, or one
// in idleCloseShare of the rest if that is more: 10,000 in 2 s.
const (
	idleCloseEvery = 50 * time.Millisecond
	idleCloseShare = 8
	MinIdleClose   = 32
)

// CloseIdle waits until every HTTP/1 connection has ended, or limit ends. After the end of grace it
// closes connections without a request, in rounds. At the end of limit the remaining connections
// without a request are counted and closed, by CloseIdle or by the Shutdown that follows.
func (d *Drain) CloseIdle(grace, limit context.Context) {
	graced := grace.Done()
	var round <-chan time.Time
	for {
		d.mu.Lock()
		n := len(d.conns)
		d.mu.Unlock()
		if n == 0 {
			d.signal() // for other calls that wait
			return
		}
		select {
		case <-d.empty:
		case <-graced:
			graced = nil
			d.parking.Store(false)
			ticker := time.NewTicker(idleCloseEvery)
			defer ticker.Stop()
			round = ticker.C
		case <-round:
			d.closeSome(max(MinIdleClose, n/idleCloseShare))
		case <-limit.Done():
			d.closeRest()
			return
		}
	}
}

// closeSome closes up to n connections that have no request, and counts them. It keeps a connection
// from which there are bytes to read, or which has received some since the last look: the server
// has read them, and may not know yet that they are a request.
func (d *Drain) closeSome(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c, st := range d.conns {
		if n == 0 {
			return
		}
		if st.ConnState != http.StateIdle && st.ConnState != http.StateNew {
			continue
		}
		waiting, received := input(c)
		switch {
		case waiting:
		case !st.looked || received != st.received:
			st.looked, st.received = true, received
		default:
			closeBelow(c)
			d.force(1, false)
			delete(d.conns, c)
			n--
		}
	}
	if len(d.conns) == 0 {
		d.signal()
	}
}

// closeRest closes and counts all connections that have no request.
func (d *Drain) closeRest() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return
	}
	d.over = true
	for c, st := range d.conns {
		switch st.ConnState {
		case http.StateNew, http.StateIdle: // Shutdown would wait 5 s for a new one's request
			asked, _ := input(c)
			closeBelow(c)
			d.force(1, asked)
		case http.StateActive, http.StateClosed, http.StateHijacked:
		}
	}
}

// closeBelow closes the innermost connection of c, or c itself if it may go on elsewhere. The close
// of a tls.Conn itself waits up to 5 s for a client that does not read. Package http closes c
// later, and finds it closed.
func closeBelow(c net.Conn) {
	if _, ok := c.(movable); !ok {
		for b := below(c); b != nil; b = below(b) {
			c = b
		}
	}
	_ = c.Close()
}

// below returns the connection that c wraps, if c has NetConn as tls.Conn has; nil otherwise.
func below(c net.Conn) net.Conn {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return nil
}
