package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T, args ...string) (p *runtimetest.Program, addr string) {
	t.Helper()
	p = runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0", "-tls", "127.0.0.1:0"}, args...)...)
	return p, p.Await(`^http://([^/]+)/`)[1]
}

// end asks the program to end, which it must do in order.
func end(t *testing.T, p *runtimetest.Program) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// peer is a connection as a balancer makes it, on behalf of source.
type peer struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	return &peer{t, c, bufio.NewReader(c)}
}

// proxyHeader is written by the library, not by us.
func proxyHeader(t *testing.T, version byte, source string, tlvs ...proxyproto.TLV) []byte {
	t.Helper()
	from, err := net.ResolveTCPAddr("tcp", source)
	if err != nil {
		t.Fatal(err)
	}
	to := &net.TCPAddr{IP: net.ParseIP("198.51.100.7"), Port: 443}
	if from.IP.To4() == nil {
		to.IP = net.ParseIP("2001:db8::7")
	}
	h := proxyproto.HeaderProxyFromAddrs(version, from, to)
	if len(tlvs) > 0 {
		if err := h.SetTLVs(tlvs); err != nil {
			t.Fatal(err)
		}
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// get asks for a page on the connection, and says whether it is the last answer there.
func (c *peer) get(path string) (body string, closes bool) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b), resp.Close
}

// TestChaos: a client of HTTPS is served by the certificate of the name that it asked for, and its
// address is known behind the gateway; a kill fails at most the requests under way, and a reload
// none; websockets last until their worker has gone.
func TestChaos(t *testing.T) {
	examplestest.Chaos(t, "-addr", "127.0.0.1:0", "-tls", "127.0.0.1:0", "-shutdown", "3s")
}

// TestClients: handlers see the client's address, by either version of the header; one client has
// one worker, from whichever port; and the workers share the clients.
func TestClients(t *testing.T) {
	p, addr := start(t)
	homes := map[string]bool{}
	tlv := proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("shop.example")}
	const clients = 12
	for i := range clients {
		host := fmt.Sprintf("192.0.2.%d", i)
		if i%3 == 0 {
			host = fmt.Sprintf("[2001:db8::%d]", i+1)
		}
		home := ""
		for port, h := range [][]byte{
			proxyHeader(t, 1, host+":1000"), proxyHeader(t, 2, host+":1001"), proxyHeader(t, 2, host+":1002", tlv),
		} {
			c := dial(t, addr)
			_, _ = c.Write(h[:9]) // in two segments
			_, _ = c.Write(h[9:])
			for range 2 { // the connection is kept alive
				body, _ := c.get("/")
				who, source, _ := strings.Cut(strings.TrimSpace(body), " serves ")
				if source != fmt.Sprintf("%s:%d", host, 1000+port) {
					t.Fatalf("client %s:%d is seen as %q", host, 1000+port, source)
				}
				if home == "" {
					home = who
				}
				if who != home {
					t.Errorf("client %s has %s, before %s", host, who, home)
				}
			}
			c.Close()
		}
		homes[home] = true
	}
	if len(homes) != 2 {
		t.Errorf("%d clients have %v", clients, homes)
	}
	end(t, p)
}

// TestHostile: a client with no header, half a header, or a wrong one gets no page; the balancer's
// own checks (LOCAL) and UNKNOWN do, under its own address; and no other client is held up.
func TestHostile(t *testing.T) {
	p, addr := start(t, "-header", "300ms")
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	var silent []*peer
	for _, s := range []string{"", "PRO", "PROXY TCP4 192.0.2.1", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc0"} {
		c := dial(t, addr)
		_, _ = io.WriteString(c, s)
		silent = append(silent, c)
	}
	for name, s := range map[string]string{
		"none":              get,
		"not an address":    "PROXY TCP4 shop.example 198.51.100.7 1 2\r\n" + get,
		"too long":          "PROXY TCP4 " + strings.Repeat("9", 4096) + "\r\n" + get,
		"another version":   "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\x00\x01\x00\x02" + get,
		"addresses missing": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x02\xc0\x00" + get,
		"nonsense":          "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x00", 600),
	} {
		c := dial(t, addr)
		_, _ = io.WriteString(c, s)
		if b, _ := io.ReadAll(c); strings.Contains(string(b), "serves") {
			t.Errorf("%s: got %q", name, b)
		}
	}
	for name, s := range map[string]string{"LOCAL": "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "UNKNOWN": "PROXY UNKNOWN\r\n"} {
		c := dial(t, addr)
		_, _ = io.WriteString(c, s)
		if body, _ := c.get("/"); !strings.HasSuffix(body, " serves "+c.LocalAddr().String()+"\n") {
			t.Errorf("%s: %q", name, body)
		}
	}
	c := dial(t, addr)
	_, _ = c.Write(proxyHeader(t, 2, "192.0.2.1:1"))
	if body, _ := c.get("/"); !strings.HasSuffix(body, " serves 192.0.2.1:1\n") {
		t.Errorf("got %q", body)
	}
	for _, c := range silent {
		if b, _ := io.ReadAll(c); strings.Contains(string(b), "serves") {
			t.Errorf("a client with half a header got %q", b)
		}
	}
	end(t, p)
}

// TestNotTrusted: a header from elsewhere than the balancers is not believed.
func TestNotTrusted(t *testing.T) {
	p, addr := start(t, "-trust", "10.0.0.0/8")
	c := dial(t, addr)
	_, _ = c.Write(proxyHeader(t, 1, "192.0.2.1:1"))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, _ := io.ReadAll(c); strings.Contains(string(b), "192.0.2.1") {
		t.Errorf("got %q", b)
	}
	end(t, p)
}

// balancer passes connections on to addr, each behind a header, until the test ends.
func balancer(t *testing.T, addr string) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	pass := func(c net.Conn) {
		defer c.Close()
		s, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer s.Close()
		h := proxyproto.HeaderProxyFromAddrs(2, c.RemoteAddr(), c.LocalAddr())
		if _, err := h.WriteTo(s); err != nil {
			return
		}
		var up sync.WaitGroup
		up.Go(func() {
			_, _ = io.Copy(s, c)
			_ = s.(*net.TCPConn).CloseWrite()
		})
		_, _ = io.Copy(c, s)
		c.Close()
		up.Wait()
	}
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() { pass(c) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		all.Wait()
	})
	return "http://" + ln.Addr().String() + "/"
}

// TestKill: behind a balancer, workers are killed with −9 under load. No client is refused and none
// hangs; cut is only what the killed worker had claimed.
func TestKill(t *testing.T) {
	p, addr := start(t)
	url := balancer(t, addr)
	kids := runtimetest.Children(t, p.PID()) // the listener process, web/0, web/1
	c := runtimetest.Load{URL: url, InFlight: 8}.RunOverKills(t, p, kids[1:])
	if c.Refused != 0 || c.Hung != 0 || c.Other != 0 || c.Cut > 2*8 {
		t.Errorf("%v (%v)", c, c.First)
	}
	end(t, p)
}

// TestReloads: the program reloads behind a balancer while clients keep their connections. Each
// client gets the word to open another connection, and no request fails.
func TestReloads(t *testing.T) {
	p, addr := start(t)
	url := balancer(t, addr)
	examplestest.ReloadUnder(t, p, url, 3)
	end(t, p)
}

// TestDrain: what is being answered when the program is asked to end is answered. Connections are
// counted through the wrapper, as they come and go.
func TestDrain(t *testing.T) {
	p, addr := start(t, "-shutdown", "4s")
	const all, ended = 6, 4
	var conns []*peer
	for i := range all {
		c := dial(t, addr)
		_, _ = c.Write(proxyHeader(t, 1, fmt.Sprintf("192.0.2.%d:1", i)))
		c.get("/")
		conns = append(conns, c)
	}
	open := func(want int) func() bool {
		return func() bool { // by a connection of its own, for counts are told when connections come
			c := dial(t, addr)
			defer c.Close()
			_, _ = c.Write(proxyHeader(t, 2, "192.0.2.99:1"))
			body, _ := c.get("/counts")
			n := -1
			_, _ = fmt.Sscanf(body, "open %d ", &n)
			return n == want || n == want+1 // with the one that asks
		}
	}
	runtimetest.Eventually(t, "all to be counted", open(all))
	for _, c := range conns[all-ended:] {
		c.Close()
	}
	runtimetest.Eventually(t, "the ends to be counted", open(all-ended))
	answer := make(chan string, 1)
	go func() {
		body, _ := conns[1].get("/slow")
		answer <- body
	}()
	p.Await("answering slowly")
	end(t, p)
	if s := <-answer; s != "done\n" {
		t.Errorf("got %q", s)
	}
}

// TestHAProxy: with a real balancer in between, by both versions of the header, and with its health
// checks.
func TestHAProxy(t *testing.T) {
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("needs haproxy")
	}
	p, addr := start(t)
	config := "defaults\n mode tcp\n timeout connect 10s\n timeout client 60s\n timeout server 60s\n"
	var files []*os.File
	var fronts []string
	for i, send := range []string{"send-proxy", "send-proxy-v2"} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, fronts = append(files, f), append(fronts, ln.Addr().String())
		config += fmt.Sprintf("listen l%d\n bind fd@%d\n server s %s %s check inter 50ms\n", i, 3+i, addr, send)
	}
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-f", path, "-db")
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	home := ""
	for range 3 {
		for _, front := range fronts {
			c := dial(t, front) // waits in the backlog until it has started
			body, _ := c.get("/")
			who, source, _ := strings.Cut(strings.TrimSpace(body), " serves ")
			if home == "" {
				home = who
			}
			if source != c.LocalAddr().String() || who != home {
				t.Errorf("%q; the client is %v, and had %s", body, c.LocalAddr(), home)
			}
			c.Close()
		}
	}
	end(t, p)
}
