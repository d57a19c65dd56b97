package coppice

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
)

// drained is a worker that serves by Worker.Serve, without a master: the test asks it to stop.
type drained struct {
	t      *testing.T
	c      *child.Session
	addr   string
	served chan error
}

const patience = 60 * time.Second // of these tests: running into it is a defect

// serveDrained serves with s until the test's end. wrap, if not nil, wraps the listener.
func serveDrained(t *testing.T, s *http.Server, wrap func(net.Listener) net.Listener) *drained {
	t.Helper()
	c := child.Standalone(child.Config{Logger: slog.New(slog.DiscardHandler)})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Worker{c: c}
	d := &drained{t: t, c: c, addr: ln.Addr().String(), served: make(chan error, 1)}
	own := w.Adopt(ln)
	if wrap != nil {
		own = wrap(own)
	}
	go func() { d.served <- w.Serve(c.Context(), own, s) }() // awaited by end
	t.Cleanup(func() {
		c.BeginDrain(0, 0)
		_ = s.Close()
	})
	return d
}

// drain asks the worker to stop, without a deadline, and returns when Serve has noticed it: an
// earlier request is answered as usual.
func (d *drained) drain() {
	d.t.Helper()
	d.c.BeginDrain(time.Hour, time.Hour)
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		if d.c.Draining() || len(d.served) > 0 {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatal("Serve has not begun to drain")
		}
	}
}

// end waits until Serve returns, and returns how many connections it cut.
func (d *drained) end() (forced int64) {
	d.t.Helper()
	select {
	case err := <-d.served:
		if err != nil && !errors.Is(err, context.Canceled) {
			d.t.Errorf("Serve: %v", err)
		}
	case <-time.After(patience):
		d.t.Fatal("Serve does not return")
	}
	return d.c.Forced()
}

// TestServerIsGivenBack: when Serve has returned, the fields of the server are what they were, and
// its hooks were called during Serve.
func TestServerIsGivenBack(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/", ok)
	var states atomic.Int64
	s := &http.Server{Handler: mux, ConnState: func(net.Conn, http.ConnState) { states.Add(1) }}
	d := serveDrained(t, s, nil)
	c := d.dial()
	c.ask("/")
	c.answer()
	d.drain()
	c.ask("/")
	if !c.answer() {
		t.Error("a draining server keeps the connection")
	}
	d.end()
	if s.Handler != mux || s.ConnContext != nil || s.TLSNextProto != nil || s.TLSConfig != nil {
		t.Errorf("the server is %+v", s)
	}
	before := states.Load()
	s.ConnState(nil, http.StateNew)
	if before == 0 || states.Load() != before+1 {
		t.Errorf("%d states before, %d after: ConnState is not the user's", before, states.Load())
	}
}

// client is one HTTP/1 connection, used by hand.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (d *drained) dial() *client {
	d.t.Helper()
	c, err := net.Dial("tcp", d.addr)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &client{d.t, c, bufio.NewReader(c)}
}

func (c *client) ask(path string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads a whole answer and reports whether its connection closes.
func (c *client) answer() (closes bool) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		c.t.Fatal(err)
	}
	return resp.Close
}

// closed waits for the orderly end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err != io.EOF {
		c.t.Errorf("read %q, %v: want EOF", b, err)
	}
}

func ok(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok") }

// TestDrainIdle: an idle connection is not closed when the drain begins. It answers
// one more request, which says that it was the last.
func TestDrainIdle(t *testing.T) {
	d := serveDrained(t, &http.Server{Handler: http.HandlerFunc(ok)}, nil)
	asked, silent := d.dial(), d.dial()
	asked.ask("/")
	if asked.answer() {
		t.Fatal("the connection closes before the drain")
	}
	silent.ask("/")
	silent.answer()

	d.drain()
	for _, c := range []*client{asked, silent} {
		c.ask("/")
		if !c.answer() {
			t.Error("an answer in the drain does not close its connection")
		}
		c.closed()
	}
	if n := d.end(); n != 0 {
		t.Errorf("%d connections forced, want 0", n)
	}
	if _, err := net.Dial("tcp", d.addr); err == nil {
		t.Error("a drained worker still listens")
	}
}

// TestDrainIdleForced: an idle connection whose client sends no further request is closed at the
// end of the wait and counted; so is a connection without any request.
func TestDrainIdleForced(t *testing.T) {
	accepted := make(chan struct{}, 2)
	d := serveDrained(t, &http.Server{
		Handler: http.HandlerFunc(ok),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				accepted <- struct{}{}
			}
		},
	}, nil)
	idle, silent := d.dial(), d.dial()
	<-accepted
	<-accepted
	idle.ask("/")
	idle.answer()
	d.c.BeginDrain(time.Hour, 0)
	idle.closed()
	silent.closed()
	if n := d.end(); n != 2 {
		t.Errorf("%d connections forced, want 2", n)
	}
}

// gated is a connection of which the server reads nothing while the gate is shut.
type gated struct {
	net.Conn
	gate *sync.RWMutex
}

func (c gated) NetConn() net.Conn { return c.Conn }

func (c gated) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:1])
	if n > 0 {
		c.gate.RLock()
		defer c.gate.RUnlock()
	}
	return n, err
}

type gatedListener struct {
	net.Listener
	gate *sync.RWMutex
}

func (l gatedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return gated{c, l.gate}, nil
}

// TestDrainFade: towards the end of the wait connections without a request are closed a few at a
// time, and counted; long before the drain's deadline they are gone. One whose request has arrived,
// and is not read yet, is answered.
func TestDrainFade(t *testing.T) {
	var gate sync.RWMutex
	d := serveDrained(t, &http.Server{Handler: http.HandlerFunc(ok)}, func(ln net.Listener) net.Listener { return gatedListener{ln, &gate} })
	var idle []*client
	for range httpdrain.MinIdleClose + 10 {
		c := d.dial()
		c.ask("/")
		c.answer()
		idle = append(idle, c)
	}
	asking := d.dial()
	asking.ask("/")
	asking.answer()
	d.drain()
	gate.Lock()
	asking.ask("/")
	d.c.EndIdleGrace()
	for _, c := range idle {
		c.closed()
	}
	gate.Unlock()
	if !asking.answer() {
		t.Error("an answer in the drain does not close its connection")
	}
	asking.closed()
	if n := d.end(); n != int64(len(idle)) {
		t.Errorf("%d connections forced, want %d", n, len(idle))
	}
	if d.c.DrainContext().Err() != nil {
		t.Error("the drain took until its deadline")
	}
}

// TestDrainOfClosesThatWait: connections whose close takes its time, as that of TLS does for a
// client that does not read, hold up neither the drain nor the requests of others.
func TestDrainOfClosesThatWait(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	var wait atomic.Bool
	d := serveDrained(t, &http.Server{Handler: http.HandlerFunc(ok)}, func(ln net.Listener) net.Listener {
		return slowClosing{ln, &wait, release}
	})
	wait.Store(true)
	for range 3 {
		c := d.dial()
		c.ask("/")
		c.answer()
	}
	wait.Store(false)
	asking := d.dial()
	asking.ask("/")
	asking.answer()
	d.drain()
	d.c.EndIdleGrace()
	asking.closed()
	if n := d.end(); n != 4 {
		t.Errorf("%d connections forced, want 4", n)
	}
}

// slowClosing accepts connections that, if wait says so by then, are closed when they are released.
type slowClosing struct {
	net.Listener
	wait    *atomic.Bool
	release chan struct{}
}

func (l slowClosing) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil && l.wait.Load() {
		c = &slowToClose{Conn: c, release: l.release}
	}
	return c, err
}

type slowToClose struct {
	net.Conn
	release chan struct{}
}

func (c *slowToClose) NetConn() net.Conn { return c.Conn }

// Close waits, if the connection below it is open, as that of a tls.Conn does.
func (c *slowToClose) Close() error {
	if c.SetDeadline(time.Time{}) == nil {
		<-c.release
	}
	return c.Conn.Close()
}

// TestDrainInFlight: a request under way is answered in full. When its headers
// were written before the drain began its connection answers one more.
func TestDrainInFlight(t *testing.T) {
	begun, proceed := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/slow", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "half")
		_ = http.NewResponseController(rw).Flush()
		close(begun)
		<-proceed
		_, _ = io.WriteString(rw, "half")
	})
	mux.HandleFunc("/", ok)
	d := serveDrained(t, &http.Server{Handler: mux}, nil)
	c := d.dial()
	c.ask("/slow")
	<-begun
	d.drain()
	<-d.c.Context().Done()
	close(proceed)
	if c.answer() {
		t.Fatal("headers that were written before the drain say that it closes")
	}
	c.ask("/")
	if !c.answer() {
		t.Error("the last answer does not close its connection")
	}
	if n := d.end(); n != 0 {
		t.Errorf("%d connections forced, want 0", n)
	}
}

// TestDrainDeadline: a connection that is being answered, or is hijacked, at the deadline is cut
// and counted.
func TestDrainDeadline(t *testing.T) {
	begun := make(chan struct{}, 2)
	mux := http.NewServeMux()
	mux.HandleFunc("/stuck", func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
	})
	mux.HandleFunc("/hijack", func(rw http.ResponseWriter, _ *http.Request) {
		if _, _, err := http.NewResponseController(rw).Hijack(); err != nil {
			t.Error(err)
		}
		begun <- struct{}{}
	})
	d := serveDrained(t, &http.Server{Handler: mux}, nil)
	d.dial().ask("/stuck")
	d.dial().ask("/hijack")
	<-begun
	<-begun
	d.c.BeginDrain(0, 0)
	if n := d.end(); n != 2 {
		t.Errorf("%d connections forced, want 2", n)
	}
}

// TestDrainDeadlineOfItself: a handler that ends with WorkContext may close its connection before
// Serve counts: the connection counts as cut by the deadline all the same. So does an idle
// connection that the drain has waited for; it is counted once.
func TestDrainDeadlineOfItself(t *testing.T) {
	begun, closed := make(chan struct{}), make(chan struct{})
	var d *drained
	mux := http.NewServeMux()
	mux.HandleFunc("/hijack", func(rw http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
		}
		context.AfterFunc((&Worker{c: d.c}).WorkContext(), func() {
			c.Close()
			close(closed)
		})
		close(begun)
	})
	mux.HandleFunc("/", ok)
	d = serveDrained(t, &http.Server{Handler: mux}, nil)
	idle := d.dial()
	idle.ask("/")
	idle.answer()
	d.dial().ask("/hijack")
	<-begun
	d.drain()
	d.c.BeginDrain(0, time.Hour)
	<-closed
	if n := d.end(); n != 2 {
		t.Errorf("%d connections forced, want 2", n)
	}
}

// TestDrainHijacked: Serve waits for a hijacked connection, which Shutdown of
// http.Server does not.
func TestDrainHijacked(t *testing.T) {
	conns := make(chan net.Conn, 1)
	d := serveDrained(t, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
		}
		conns <- c
	})}, nil)
	d.dial().ask("/")
	c := <-conns
	d.drain()
	select {
	case err := <-d.served:
		t.Fatalf("Serve has not waited for a hijacked connection: %v", err)
	case <-d.c.Context().Done():
	}
	c.Close()
	if n := d.end(); n != 0 {
		t.Errorf("%d connections forced, want 0", n)
	}
}
