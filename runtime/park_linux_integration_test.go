//go:build linux

package coppice_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// servedVar is the variable with the path of a file that gets a line for each request that was
// served: its ID.
const servedVar = "COPPICE_TEST_SERVED"

func init() {
	certificates := sync.OnceValue(func() []tls.Certificate {
		s := httptest.NewTLSServer(nil)
		s.Close()
		return s.TLS.Certificates
	})
	parks := func(park, idle time.Duration) func() coppice.Config {
		return func() coppice.Config {
			cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
				if string(w.Config()) == "fail" {
					return errors.New("no such database")
				}
				h := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { parkHandler(ctx, w, rw, r) })
				plain := &http.Server{Handler: h, IdleTimeout: idle, Protocols: new(http.Protocols)}
				plain.Protocols.SetHTTP1(true)
				plain.Protocols.SetUnencryptedHTTP2(true)
				encrypted := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: certificates()}}
				var serving sync.WaitGroup
				errs := make(chan error, 4)
				for name, serve := range map[string]func(net.Listener) error{
					"http":  func(ln net.Listener) error { return w.Serve(ctx, ln, plain) },
					"unix":  func(ln net.Listener) error { return w.Serve(ctx, ln, plain) },
					"lines": func(ln net.Listener) error { return w.Serve(ctx, ln, &lineServer{w: w}) },
					"tls":   func(ln net.Listener) error { return w.ServeTLS(ctx, ln, encrypted) },
				} {
					ln, err := w.Listener(ctx, name)
					if err != nil {
						return err
					}
					serving.Go(func() { errs <- serve(ln) }) // ends with the worker
				}
				serving.Wait()
				return errors.Join(<-errs, <-errs, <-errs, <-errs)
			})
			web := cfg.Children[0].(coppice.Pool)
			web.Intensity, web.StartTimeout = supervisor.Intensity{Max: 100, Period: time.Second}, runtimetest.Patience
			on := func(name string, park time.Duration) coppice.ListenerSpec {
				return coppice.ListenerSpec{Name: name, Network: "tcp", Address: "127.0.0.1:0", Park: park}
			}
			own := filepath.Base(filepath.Dir(filepath.Dir(os.Getenv(servedVar)))) // the test's, and no other run's
			unix := coppice.ListenerSpec{Name: "unix", Network: "unix", Address: "@coppice-park-" + own, Park: park}
			cfg.Children, cfg.Load = []coppice.ChildSpec{on("http", park), unix, on("lines", park), on("tls", 0), web}, loadOrder
			return cfg
		}
	}
	trees["parks"] = parks(0, 0)
	trees["parks, idle timeout"] = parks(20*time.Millisecond, time.Second)
	trees["parks soon"] = parks(20*time.Millisecond, 0)
	trees["parks at once"] = parks(coppice.ParkAtOnce, 0)
	trees["parks never"] = parks(coppice.ParkNever, 0)
}

// parkHandler notes the request's ID, and answers with the worker's slot and generation and the
// request's body.
func parkHandler(ctx context.Context, w *coppice.Worker, rw http.ResponseWriter, r *http.Request) {
	f, err := os.OpenFile(os.Getenv(servedVar), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(f, r.Header.Get("Id"))
	f.Close()
	if r.URL.Path == "/hijack" {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-ctx.Done()
		fmt.Fprint(c, "bye")
		return
	}
	body, _ := io.ReadAll(r.Body)
	if r.URL.Path == "/slow" {
		time.Sleep(300 * time.Millisecond) // the load: some requests are under way in a reload
	}
	fmt.Fprintf(rw, "%d %d %s", w.Slot(), w.Generation(), body)
}

// lineServer answers each line with the generation of its worker: a server other than http's that
// takes part in parking.
type lineServer struct {
	w     *coppice.Worker
	conns sync.WaitGroup
}

func (s *lineServer) Serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		s.conns.Go(func() { // ends with the connection
			defer c.Close()
			p := c.(coppice.ParkableConn)
			for r := bufio.NewReader(c); ; {
				if r.Buffered() == 0 {
					p.Idle()
				}
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
				fmt.Fprintln(c, s.w.Generation())
			}
		})
	}
}

func (s *lineServer) Shutdown(context.Context) error {
	s.conns.Wait()
	return nil
}

// parkTree is a tree of the above, and what was asked of it.
type parkTree struct {
	*runningTree
	served string
	asked  int
}

func startParkTree(t *testing.T, name string) *parkTree {
	t.Helper()
	served := t.TempDir() + "/served"
	if err := os.WriteFile(served, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv(servedVar, served)
	setOrder("serve")
	p := &parkTree{served: served}
	p.runningTree = startTree(t, name)
	t.Cleanup(func() { p.wantOnce() })
	return p
}

// wantOnce checks that each request was served once.
func (p *parkTree) wantOnce() {
	b, err := os.ReadFile(p.served)
	if err != nil {
		p.t.Fatal(err)
	}
	times := map[string]int{}
	for _, id := range strings.Fields(string(b)) {
		times[id]++
	}
	for id, n := range times {
		if n != 1 {
			p.t.Errorf("request %s was served %d times", id, n)
		}
	}
}

func (p *parkTree) addr(name string) (network, addr string) {
	for _, l := range p.Listeners() {
		if l.Name == name {
			return l.Addr.Network(), l.Addr.String()
		}
	}
	p.t.Fatal("no listener " + name)
	return "", ""
}

func (p *parkTree) dial(name string) *parkClient {
	p.t.Helper()
	network, addr := p.addr(name)
	c, err := net.Dial(network, addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(runtimetest.Patience)); err != nil {
		p.t.Fatal(err)
	}
	return &parkClient{p: p, Conn: c, r: bufio.NewReader(c)}
}

func (p *parkTree) counts() netactor.Counts {
	p.t.Helper()
	all, err := p.ListenerStats(p.t.Context())
	if err != nil {
		return netactor.Counts{} // the listener process is being replaced
	}
	for _, l := range all {
		if l.Name == "http" && l.Stats != nil {
			if !l.Stats.Counts.Balanced() {
				p.t.Errorf("the counts do not balance: %+v", l.Stats.Counts)
			}
			return l.Stats.Counts
		}
	}
	return netactor.Counts{}
}

func (p *parkTree) parked(n int) {
	p.t.Helper()
	runtimetest.Eventually(p.t, fmt.Sprintf("%d connections parked", n), func() bool { return p.counts().Parked == n })
}

// parkClient is one connection of a client.
type parkClient struct {
	p *parkTree
	net.Conn
	r *bufio.Reader
}

// request returns the text of a request with an ID of its own.
func (p *parkTree) request(method, path, head, body string) string {
	p.asked++
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nId: %d\r\n%s\r\n%s", method, path, p.asked, head, body)
}

func (c *parkClient) send(text string) {
	c.p.t.Helper()
	if _, err := io.WriteString(c.Conn, text); err != nil {
		c.p.t.Fatal(err)
	}
}

// answer reads an answer, which must leave the connection open; it returns slot, generation, body.
func (c *parkClient) answer(method string) (slot, generation int, body string) {
	c.p.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.p.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Close {
		c.p.t.Fatalf("%s, closes %v, %q, %v", resp.Status, resp.Close, b, err)
	}
	if method == "HEAD" {
		return 0, 0, ""
	}
	f := strings.SplitN(string(b), " ", 3)
	slot, _ = strconv.Atoi(f[0])
	if len(f) > 2 {
		generation, _ = strconv.Atoi(f[1])
		body = f[2]
	}
	return slot, generation, body
}

// ask asks, and returns the slot and the generation that answered.
func (c *parkClient) ask() (slot, generation int) {
	c.p.t.Helper()
	c.send(c.p.request("GET", "/", "", ""))
	slot, generation, _ = c.answer("GET")
	return slot, generation
}

// askUntil asks until a generation answers. An earlier one may answer first: its drain has not come
// to this connection yet, or its server has read the first byte of the next request with the
// answer.
func (c *parkClient) askUntil(generation int) {
	c.p.t.Helper()
	for _, got := c.ask(); got != generation; _, got = c.ask() {
	}
}

// mustEnd waits for the orderly end of the connection.
func (c *parkClient) mustEnd() {
	c.p.t.Helper()
	if b, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		c.p.t.Errorf("read %q, %v: want EOF", b, err)
	}
}

// TestParkReload: a client that keeps its connection open does not notice a reload: whatever it was
// about to send, a new worker answers over the same connection.
func TestParkReload(t *testing.T) { inBoth(t, testParkReload) }

func testParkReload(t *testing.T) {
	p := startParkTree(t, "parks")
	var all []*parkClient
	for _, l := range []string{"http", "unix"} {
		for range 20 {
			c := p.dial(l)
			c.ask()
			all = append(all, c)
		}
	}
	for range 4 {
		all = append(all, p.dial("http")) // has sent nothing yet
	}
	lines := p.dial("lines")
	lines.send("a\n")
	if got, _ := lines.r.ReadString('\n'); got != "1\n" {
		t.Errorf("the line was answered by generation %q", got)
	}
	for round := range 3 {
		bytewise, chunked, expects, heads, pipelined, slow := p.dial("http"), p.dial("http"), p.dial("http"), p.dial("http"), p.dial("http"), p.dial("http")
		line, body := p.dial("http"), p.dial("http")
		get := p.request("GET", "/", "", "")
		bytewise.send(get[:len(get)/2])
		chunked.send(p.request("POST", "/", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"))
		expects.send(p.request("POST", "/", "Content-Length: 5\r\nExpect: 100-continue\r\n", ""))
		if resp, err := http.ReadResponse(expects.r, nil); err != nil || resp.StatusCode != 100 {
			t.Fatalf("%v, %v", resp, err)
		}
		heads.send(p.request("HEAD", "/", "", ""))
		heads.answer("HEAD")
		second := p.request("GET", "/", "", "")
		pipelined.send(p.request("GET", "/slow", "", "") + second[:20])
		slow.send(p.request("GET", "/slow", "", ""))
		// Of the second request a line, or the head, is read with the first one.
		third := p.request("GET", "/", "", "")
		cut := strings.Index(third, "\r\n") + 2
		line.send(p.request("GET", "/slow", "", "") + third[:cut])
		body.send(p.request("GET", "/slow", "", "") + p.request("POST", "/", "Content-Length: 5\r\n", ""))

		if round == 1 {
			setOrder("fail")
			if err := p.failReload(); err == nil {
				t.Error("a release that fails was taken")
			}
			setOrder("serve")
		}
		p.mustReload()
		want := p.slots()["web/0"].Generation
		for _, c := range all {
			c.askUntil(want)
		}
		for got := ""; got != fmt.Sprintln(want); {
			lines.send("b\n")
			var err error
			if got, err = lines.r.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		for i := len(get) / 2; i < len(get); i++ {
			bytewise.send(get[i : i+1])
		}
		bytewise.answer("GET")
		chunked.send("5\r\nworld\r\n0\r\n\r\n")
		if _, _, body := chunked.answer("POST"); body != "helloworld" {
			t.Errorf("chunked body %q", body)
		}
		expects.send("hello")
		if _, _, body := expects.answer("POST"); body != "hello" {
			t.Errorf("expected body %q", body)
		}
		slow.answer("GET")
		line.answer("GET")
		line.send(third[cut:])
		line.answer("GET")
		body.answer("GET")
		body.send("hello")
		if _, _, got := body.answer("POST"); got != "hello" {
			t.Errorf("body behind a pipelined head %q", got)
		}
		pipelined.answer("GET")
		pipelined.send(second[20:])
		pipelined.answer("GET")
		for _, c := range []*parkClient{bytewise, chunked, expects, heads, pipelined, slow, line, body} {
			c.askUntil(want)
			all = append(all, c)
		}
	}
	if c := p.counts(); c.Dropped+c.Reset+c.ParkedIdle+c.ParkedOver != 0 {
		t.Errorf("%+v", c)
	}
}

// TestParkStays: what cannot move is drained as ever: a hijacked connection, one over TLS, one of
// HTTP/2, one of a listener that never parks.
func TestParkStays(t *testing.T) {
	p := startParkTree(t, "parks never")
	kept, hijacked, encrypted, http2 := p.dial("http"), p.dial("http"), p.dial("tls"), p.dial("http")
	kept.ask()
	hijacked.send(p.request("GET", "/hijack", "", ""))
	hijacked.answer("HEAD")
	encrypted.Conn = tls.Client(encrypted.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	encrypted.r = bufio.NewReader(encrypted.Conn)
	encrypted.ask()
	http2.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00") // and empty settings
	p.mustReload()
	if got, err := io.ReadAll(hijacked.r); string(got) != "bye" || err != nil {
		t.Errorf("hijacked: %q, %v", got, err)
	}
	for name, c := range map[string]*parkClient{"kept": kept, "encrypted": encrypted} {
		c.send(p.request("GET", "/", "", ""))
		if resp, err := http.ReadResponse(c.r, nil); err != nil || !resp.Close {
			t.Errorf("%s: the answer in the drain: %v, %v", name, resp, err)
		}
	}
	if b, err := io.ReadAll(http2.r); err != nil || !strings.Contains(string(b), "\x07\x00\x00\x00\x00\x00") {
		t.Errorf("no GOAWAY for HTTP/2: %q, %v", b, err)
	}
	if c := p.counts(); c.GivenBack != 0 {
		t.Errorf("%+v", c)
	}
}

// TestParkKill: connections that are parked outlast the SIGKILL of every worker.
func TestParkKill(t *testing.T) {
	p := startParkTree(t, "parks soon")
	var all []*parkClient
	for range 10 {
		c := p.dial("http")
		c.ask()
		all = append(all, c)
	}
	for range 3 {
		p.parked(len(all))
		before := p.slots()
		for _, w := range before {
			if w.Role == "worker" {
				if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, c := range all {
			c.ask()
		}
		runtimetest.Eventually(t, "both workers are replaced", func() bool {
			now := p.slots()
			return now["web/0"].PID != before["web/0"].PID && now["web/1"].PID != before["web/1"].PID
		})
	}
}

// TestParkBalance: with ParkAtOnce requests are balanced, though one worker accepted all
// connections.
func TestParkBalance(t *testing.T) {
	p := startParkTree(t, "parks at once")
	if err := p.Scale(t.Context(), "web", 1); err != nil {
		t.Fatal(err)
	}
	var all []*parkClient
	for range 8 {
		c := p.dial("http")
		c.ask()
		all = append(all, c)
	}
	if err := p.Scale(t.Context(), "web", 4); err != nil {
		t.Fatal(err)
	}
	bySlot := map[int]int{}
	for range 10 {
		for _, c := range all {
			slot, _ := c.ask()
			bySlot[slot]++
		}
	}
	for slot := range 4 {
		if n := bySlot[slot]; n < 10 || n > 30 {
			t.Errorf("requests by slot: %v", bySlot)
		}
	}
}

// TestParkIdleTimeout: the server's IdleTimeout holds for a connection that is parked.
func TestParkIdleTimeout(t *testing.T) {
	p := startParkTree(t, "parks, idle timeout")
	c := p.dial("http")
	c.ask()
	p.parked(1)
	c.mustEnd()
	runtimetest.Eventually(t, "the timeout is counted", func() bool { return p.counts().ParkedIdle == 1 })
}

// TestParkClientLeaves: a client that leaves while it is parked is counted.
func TestParkClientLeaves(t *testing.T) {
	p := startParkTree(t, "parks soon")
	c := p.dial("http")
	c.ask()
	p.parked(1)
	c.Close()
	runtimetest.Eventually(t, "its end is counted", func() bool { return p.counts().ParkedLeft == 1 })
	p.parked(0)
}

// TestParkListenerKilled: a crash of the listener process closes what is parked in it, and nothing
// else.
func TestParkListenerKilled(t *testing.T) {
	p := startParkTree(t, "parks soon")
	parked, held := p.dial("http"), p.dial("tls")
	parked.ask()
	held.Conn = tls.Client(held.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	held.r = bufio.NewReader(held.Conn)
	held.ask()
	p.parked(1)
	p.killListener()
	parked.mustEnd()
	held.ask()
	p.dial("http").ask()
}

// TestParkTreeEnds: the end of the tree closes what is parked, at once.
func TestParkTreeEnds(t *testing.T) {
	p := startParkTree(t, "parks soon")
	c := p.dial("http")
	c.ask()
	p.parked(1)
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	c.mustEnd()
}
