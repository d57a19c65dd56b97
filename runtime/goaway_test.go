package coppice

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Frames of HTTP/2 (RFC 9113, section 6), and the flag that ends a stream or
// acknowledges settings.
const (
	h2Data, h2Headers, h2Reset, h2Settings, h2GoAway = 0, 1, 3, 4, 7

	h2Flag = 1
)

// h2client is a connection of HTTP/2, used by hand, so that a test sees each frame.
type h2client struct {
	t *testing.T
	net.Conn
	r    *bufio.Reader
	body []byte // of all answers
}

// greet begins HTTP/2 and waits until the server speaks it.
func (c *h2client) greet() {
	c.t.Helper()
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
	c.send(h2Settings, 0, 0, nil)
	c.await(h2Settings, h2Flag) // that ours have been read
}

func (c *h2client) send(kind, flags byte, stream uint32, payload []byte) {
	c.t.Helper()
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	frame = binary.BigEndian.AppendUint32(append(frame, flags), stream)
	if _, err := c.Write(append(frame, payload...)); err != nil {
		c.t.Fatal(err)
	}
}

// ask makes the first request, without a body, its headers in HPACK (RFC 7541): GET, http, the
// path and the authority x.
func (c *h2client) ask(path string) {
	c.t.Helper()
	block := append([]byte{0x82, 0x86, 0x44, byte(len(path))}, path...)
	c.send(h2Headers, h2Flag|4, 1, append(block, 0x41, 1, 'x'))
}

// await reads up to a frame of that kind that has the flag, and returns its
// payload. A frame that ends a stream or the connection, and is not waited for,
// fails the test.
func (c *h2client) await(kind, flag byte) []byte {
	c.t.Helper()
	for {
		var head [9]byte
		if _, err := io.ReadFull(c.r, head[:]); err != nil {
			c.t.Fatalf("waiting for frame %d: %v", kind, err)
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[:])>>8)
		if _, err := io.ReadFull(c.r, payload); err != nil {
			c.t.Fatal(err)
		}
		if head[3] == h2Data {
			c.body = append(c.body, payload...)
		}
		switch got := head[3]; {
		case got == kind && head[4]&flag == flag:
			return payload
		case got == h2Reset || got == h2GoAway:
			c.t.Fatalf("frame %d %x while waiting for frame %d", got, payload, kind)
		}
	}
}

// goaway waits for a GOAWAY without an error.
func (c *h2client) goaway() {
	c.t.Helper()
	if code := binary.BigEndian.Uint32(c.await(h2GoAway, 0)[4:]); code != 0 {
		c.t.Errorf("GOAWAY with error %d", code)
	}
}

// TestDrainHTTP2: every HTTP/2 connection gets GOAWAY when the drain begins, although an idle
// HTTP/1 connection holds the drain up: a connection with a stream under way, which goes on to its
// end; an idle connection; and one without a request so far. A connection that was not yet known to
// be HTTP/2 is answered once.
func TestDrainHTTP2(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	encrypted := &tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	var clear http.Protocols
	clear.SetHTTP1(true)
	clear.SetUnencryptedHTTP2(true)
	for _, tt := range []struct {
		name   string
		server *http.Server
		tls    *tls.Config
	}{
		{"TLS", &http.Server{}, encrypted},
		{"TLS, its configuration told to the server", &http.Server{TLSConfig: encrypted}, encrypted},
		{"without TLS", &http.Server{Protocols: &clear}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
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
			s := tt.server
			accepted := make(chan struct{}, 8)
			s.Handler, s.ConnState = mux, func(_ net.Conn, st http.ConnState) {
				if st == http.StateNew {
					accepted <- struct{}{}
				}
			}
			wrap := func(ln net.Listener) net.Listener { return ln }
			if tt.tls != nil {
				wrap = func(ln net.Listener) net.Listener { return tls.NewListener(ln, tt.tls) }
			}
			d := serveDrained(t, s, wrap)
			dial := func(proto string) *client { // a connection that is accepted, and no more
				c := d.dial()
				<-accepted
				if tt.tls != nil {
					c.Conn = tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{proto}})
					c.r = bufio.NewReader(c.Conn)
				}
				return c
			}
			second := func() *h2client { c := dial("h2"); return &h2client{t: t, Conn: c.Conn, r: c.r} }

			first := dial("http/1.1")
			first.ask("/")
			if first.answer() {
				t.Fatal("the connection closes before the drain")
			}
			busy, idle, silent, late, later := second(), second(), second(), second(), second()
			busy.greet()
			busy.ask("/slow")
			<-begun
			idle.greet()
			idle.ask("/")
			idle.await(h2Data, h2Flag)
			silent.greet()

			d.drain()
			for _, c := range []*h2client{busy, idle, silent} {
				c.goaway()
			}
			close(proceed)
			if busy.await(h2Data, h2Flag); string(busy.body) != "halfhalf" {
				t.Errorf("the answer under way is %q", busy.body)
			}
			late.greet()
			late.ask("/")
			late.goaway()
			if len(late.body) == 0 { // the two come in either order
				late.await(h2Data, 0)
			}
			if string(late.body) != "ok" {
				t.Errorf("the one that became HTTP/2 in the drain is answered %q", late.body)
			}
			later.greet()
			for _, c := range []*h2client{busy, idle, silent, late} {
				c.Close()
			}
			select {
			case err := <-d.served:
				t.Fatalf("Serve has not waited for the idle connection of HTTP/1: %v", err)
			default:
			}
			first.ask("/")
			if !first.answer() {
				t.Error("the idle connection of HTTP/1 is not told to close")
			}
			later.goaway() // nothing is waited for any more
			later.Close()
			if n := d.end(); n != 0 {
				t.Errorf("%d connections forced, want 0", n)
			}
		})
	}
}

// TestDrainHTTP2Deadline: a stream that is under way at the drain's deadline is cut
// with its connection, which is counted. It had its GOAWAY long before.
func TestDrainHTTP2Deadline(t *testing.T) {
	var clear http.Protocols
	clear.SetUnencryptedHTTP2(true)
	d := serveDrained(t, &http.Server{Protocols: &clear, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	})}, nil)
	c := d.dial()
	stuck := &h2client{t: t, Conn: c.Conn, r: c.r}
	stuck.greet()
	stuck.ask("/")
	d.drain()
	stuck.goaway()
	d.c.BeginDrain(0, 0)
	if n := d.end(); n != 1 {
		t.Errorf("%d connections forced, want 1", n)
	}
}

// TestDrainHTTP2OfOthers: an HTTP/2 that the user has set up is served as it is.
func TestDrainHTTP2OfOthers(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	conf := &tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: []string{"h2"}}
	d := serveDrained(t, &http.Server{TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
		"h2": func(_ *http.Server, c *tls.Conn, _ http.Handler) { _, _ = io.WriteString(c, "the user's") },
	}}, func(ln net.Listener) net.Listener { return tls.NewListener(ln, conf) })
	c := tls.Client(d.dial().Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if b, err := io.ReadAll(c); string(b) != "the user's" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	d.drain()
	if n := d.end(); n != 0 {
		t.Errorf("%d connections forced, want 0", n)
	}
}

// TestShutdownOfServed: a user who calls Shutdown of a server that Serve serves gets what net/http
// promises: HTTP/2 connections get GOAWAY.
func TestShutdownOfServed(t *testing.T) {
	var clear http.Protocols
	clear.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: &clear, Handler: http.HandlerFunc(ok)}
	d := serveDrained(t, s, nil)
	c := d.dial()
	idle := &h2client{t: t, Conn: c.Conn, r: c.r}
	idle.greet()
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	idle.goaway()
	idle.Close()
	select {
	case err := <-done:
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("Shutdown does not return")
	}
	d.end()
}
