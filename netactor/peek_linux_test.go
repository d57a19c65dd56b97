package netactor_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/internal/peek"
)

// peekTree has n workers on a listener that peeks. serve runs in each, with its slot.
func peekTree(t *testing.T, p netactor.Peek, f netactor.Functions, n int, serve func(ln net.Listener, id string), change ...func(*tree)) (tr *tree, addr string) {
	t.Helper()
	tr = newTree(t, false, append(change, func(tr *tree) {
		tr.cfg.Functions = func(string) netactor.Functions { return f }
	})...)
	r := loopback
	r.Policy, r.Peek, r.Functions = netactor.Hash, p, "x"
	for i := range n {
		ln := tr.worker(i).mustListen(r)
		r.Address, addr = ln.Addr().String(), ln.Addr().String()
		go serve(ln, fmt.Sprint(i))
	}
	tr.joined(n)
	return tr, addr
}

// says opens a connection and sends parts, each in a separate segment; it reads the answer to its
// end.
func says(t *testing.T, addr string, parts ...string) string {
	t.Helper()
	c := dial(t, netAddr(addr))
	defer c.Close()
	for _, p := range parts {
		_, _ = io.WriteString(c, p)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func netAddr(addr string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }

// serveWhat accepts on ln until it is closed. It answers with id and with the bytes that it has
// read, up to a newline: so a byte that peeking took would be missing.
func serveWhat(ln net.Listener, id string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var said []byte
			b := make([]byte, 1)
			for len(said) < 1<<16 {
				if _, err := c.Read(b); err != nil || b[0] == '\n' {
					break
				}
				said = append(said, b[0])
			}
			_, _ = fmt.Fprintf(c, "%s:%s", id, said)
		}()
	}
}

// peeked waits until n connections were claimed, and compares the counts of peeking.
func (tr *tree) peeked(n int, want netactor.Counts) {
	tr.t.Helper()
	c := tr.settled(n).Counts
	got := netactor.Counts{Peeked: c.Peeked, PeekNone: c.PeekNone, PeekLate: c.PeekLate, PeekOver: c.PeekOver, Reset: c.Reset, Dropped: c.Dropped, Faults: c.Faults, Peeking: c.Peeking}
	if got != want {
		tr.t.Errorf("counts %+v, want %+v", got, want)
	}
}

// All connections with the same first bytes have one worker, which reads every byte; other bytes
// have other workers.
func TestPeekBytes(t *testing.T) {
	const keys, each = 24, 3
	tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 6, Timeout: time.Minute}, netactor.Functions{}, 3, serveWhat)
	homes := map[string]bool{}
	for k := range keys {
		home := ""
		for i := range each {
			key := fmt.Sprintf("key%03d", k)
			parts := []string{key, fmt.Sprintf(" and %d\n", i)}
			if i == 1 { // in as many segments as bytes
				parts = strings.Split(parts[0]+parts[1], "")
			}
			id, said, _ := strings.Cut(says(t, addr, parts...), ":")
			if said != fmt.Sprintf("%s and %d", key, i) {
				t.Fatalf("the worker has read %q", said)
			}
			if home == "" {
				home = id
			}
			if id != home {
				t.Fatalf("%s was served by %s, before by %s", key, id, home)
			}
		}
		homes[home] = true
	}
	if len(homes) != 3 {
		t.Errorf("of 3 workers %d have served %d keys", len(homes), keys)
	}
	tr.peeked(keys*each, netactor.Counts{Peeked: keys * each})
}

// segments writes data in segments of n bytes.
type segments struct {
	net.Conn
	n int
}

func (s segments) Write(b []byte) (int, error) {
	for i := 0; i < len(b); i += s.n {
		if _, err := s.Conn.Write(b[i:min(len(b), i+s.n)]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// testCertificate is valid for any name, for clients that do not verify it.
func testCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TLS clients with one server name have one worker, however their hello is split, in whatever case
// the name is written. The worker does the handshake, which works as without peeking.
func TestPeekSNI(t *testing.T) {
	cfg := &tls.Config{Certificates: []tls.Certificate{testCertificate(t)}}
	serve := func(ln net.Listener, id string) {
		ln = tls.NewListener(ln, cfg)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, id)
			}()
		}
	}
	tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekSNI, Timeout: time.Minute}, netactor.Functions{}, 3, serve)
	ask := func(name string, n int) string {
		t.Helper()
		c := dial(t, netAddr(addr))
		defer c.Close()
		b, err := io.ReadAll(tls.Client(segments{c, n}, &tls.Config{ServerName: name, InsecureSkipVerify: true}))
		if err != nil {
			t.Fatalf("%s in segments of %d: %v", name, n, err)
		}
		return string(b)
	}
	homes := map[string]bool{}
	const names = 16
	for i := range names {
		name := fmt.Sprintf("tenant%d.example", i)
		home := ask(name, 1<<20)
		for _, n := range []int{7, 100} {
			if id := ask(name, n); id != home {
				t.Errorf("%s in segments of %d: answer of %s, before of %s", name, n, id, home)
			}
		}
		if id := ask(strings.ToUpper(name), 1<<20); id != home {
			t.Errorf("%s in capitals: answer of %s, before of %s", name, id, home)
		}
		homes[home] = true
	}
	if len(homes) != 3 {
		t.Errorf("of 3 workers %d have served %d names", len(homes), names)
	}
	home := ask("", 1<<20) // placed by the default: the address
	for range 5 {
		if id := ask("", 50); id != home {
			t.Errorf("without a name: answer of %s, before of %s", id, home)
		}
	}
	tr.peeked(names*4+6, netactor.Counts{Peeked: names * 4, PeekNone: 6})
}

// HTTP clients that send a cookie have one worker for each value of it.
func TestPeekCookie(t *testing.T) {
	serve := func(ln net.Listener, id string) {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _ := r.Cookie("sid")
			if c == nil {
				c = new(http.Cookie)
			}
			_, _ = fmt.Fprintf(w, "%s:%s", id, c.Value)
		})}
		_ = srv.Serve(ln)
	}
	tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekCookie, Cookie: "sid", Timeout: time.Minute}, netactor.Functions{}, 3, serve)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(value string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(testContext(t), "GET", "http://"+addr, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.AddCookie(&http.Cookie{Name: "other", Value: rand.Text()})
		if value != "" {
			r.AddCookie(&http.Cookie{Name: "sid", Value: value})
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		id, got, _ := strings.Cut(string(b), ":")
		if err != nil || got != value {
			t.Fatalf("the worker has read %q, %v", b, err)
		}
		return id
	}
	homes := map[string]bool{}
	const values, each = 20, 3
	for i := range values {
		value := fmt.Sprint("session", i)
		home := ask(value)
		for range each - 1 {
			if id := ask(value); id != home {
				t.Errorf("%s: answer of %s, before of %s", value, id, home)
			}
		}
		homes[home] = true
	}
	if len(homes) != 3 {
		t.Errorf("of 3 workers %d have served %d sessions", len(homes), values)
	}
	ask("")
	tr.peeked(values*each+1, netactor.Counts{Peeked: values * each, PeekNone: 1})
}

// Behind a load balancer that uses the PROXY protocol the key is the client's address, by default
// and in Functions.Key; By looks at the bytes after the header.
func TestPeekProxy(t *testing.T) {
	header := func(version, client int) string {
		if version == 1 {
			return fmt.Sprintf("PROXY TCP4 192.0.2.%d 198.51.100.7 4096 443\r", client)
		}
		b := append([]byte(proxyV2), 0x21, 0x11, 0, 12+6, 192, 0, 2, byte(client), 198, 51, 100, 7, 0x10, 0, 1, 0xbb)
		return string(append(b, 4, 0, 3, 1, 2, 3)) // with a TLV
	}
	read := func(ln net.Listener, id string) { serveProxied(ln, id) }
	t.Run("by client", func(t *testing.T) {
		tr, addr := peekTree(t, netactor.Peek{Proxy: true, Timeout: time.Minute}, netactor.Functions{}, 3, read)
		homes := map[string]bool{}
		const clients = 20
		for i := range clients {
			v1, v2 := header(1, i), header(2, i)
			home := says(t, addr, v1, "\n", "x\n")
			if id := says(t, addr, v2[:5], v2[5:20], v2[20:], "x\n"); id != home {
				t.Errorf("client %d: by version 2 answer of %s, by version 1 of %s", i, id, home)
			}
			homes[home] = true
		}
		if len(homes) != 3 {
			t.Errorf("of 3 workers %d have served %d clients", len(homes), clients)
		}
		says(t, addr, proxyV2+"\x20\x00\x00\x00", "x\n") // LOCAL
		says(t, addr, "PROXY UNKNOWN\r\n", "x\n")
		tr.peeked(2*clients+2, netactor.Counts{Peeked: 2 * clients, PeekNone: 2})
	})
	t.Run("by a function of the addresses", func(t *testing.T) {
		seen := make(chan [2]netip.AddrPort, 100)
		_, addr := peekTree(t, netactor.Peek{Proxy: true, Timeout: time.Minute}, netactor.Functions{Key: func(peer, local netip.AddrPort) uint64 {
			seen <- [2]netip.AddrPort{peer, local}
			return 1
		}}, 2, read)
		says(t, addr, header(1, 9)+"\n", "x\n")
		if got := <-seen; got[0].String() != "192.0.2.9:4096" || got[1].String() != "198.51.100.7:443" {
			t.Errorf("addresses %v", got)
		}
	})
	t.Run("by what comes after it", func(t *testing.T) {
		tr, addr := peekTree(t, netactor.Peek{Proxy: true, By: netactor.PeekBytes, Bytes: 3, Timeout: time.Minute}, netactor.Functions{}, 3, read)
		for k := range 8 {
			key := fmt.Sprintf("k%02d", k)
			home := says(t, addr, header(1, 1)+"\n", key+"\n")
			for i := range 4 {
				if id := says(t, addr, header(2, i), key[:1], key[1:]+"\n"); id != home {
					t.Errorf("%s: answer of %s, before of %s", key, id, home)
				}
			}
		}
		tr.peeked(8*5, netactor.Counts{Peeked: 8 * 5})
	})
}

// serveProxied reads a PROXY header and one more line, and answers with id.
func serveProxied(ln net.Listener, id string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			var b []byte
			for one := make([]byte, 1); ; b = append(b, one[0]) {
				if h, _ := peek.ProxyHeader(b); bytes.HasSuffix(h.Rest, []byte("\n")) {
					break
				}
				if _, err := c.Read(one); err != nil {
					return
				}
			}
			_, _ = io.WriteString(c, id)
		}()
	}
}

// A user's function gets the first bytes until it returns a verdict. A function that panics, or
// returns an unknown verdict, blocks no client.
func TestPeekFirst(t *testing.T) {
	var lines atomic.Int64
	first := func(b []byte) (uint64, netactor.PeekVerdict) {
		line, _, whole := bytes.Cut(b, []byte("\n"))
		switch {
		case bytes.HasPrefix(b, []byte("panic")):
			panic("on purpose")
		case bytes.HasPrefix(b, []byte("made up")):
			return 0, 77
		case bytes.HasPrefix(b, []byte("none")):
			return 0, netactor.PeekUnkeyed
		case !whole:
			return 0, netactor.PeekMore
		}
		return uint64(len(line)), netactor.PeekKeyed
	}
	tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekFirst, Timeout: time.Minute}, netactor.Functions{First: first}, 3, serveWhat, func(tr *tree) {
		tr.cfg.Logger = slog.New(slog.NewTextHandler(writerFunc(func([]byte) { lines.Add(1) }), nil))
	})
	home, _, _ := strings.Cut(says(t, addr, "abc", "de", "f\n"), ":")
	for range 5 {
		if id, _, _ := strings.Cut(says(t, addr, "u", "vwxyz\n"), ":"); id != home {
			t.Errorf("answer of %s, before of %s, with one key", id, home)
		}
	}
	for _, s := range []string{"panic\n", "made up\n", "none\n"} {
		says(t, addr, s)
	}
	long := strings.Repeat("x", 2*peek.MaxBytes)
	if _, said, _ := strings.Cut(says(t, addr, long, "\n"), ":"); said != long {
		t.Errorf("the worker has read %d bytes of %d", len(said), len(long))
	}
	if c := tr.settled(10).Counts; c.Faults != 1 || c.PeekNone < 3 || c.Peeked+c.PeekNone != 10 || lines.Load() == 0 {
		t.Errorf("%+v, %d log lines", c, lines.Load())
	}
}

// A client that sends nothing in time, or closes its sending half, is placed by its default; a
// client that resets is counted.
func TestPeekSilent(t *testing.T) {
	t.Run("deadline", func(t *testing.T) {
		tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 6, Timeout: 20 * time.Millisecond}, netactor.Functions{}, 3, serveWhat)
		var conns []net.Conn
		for i := range 5 {
			c := dial(t, netAddr(addr))
			_, _ = io.WriteString(c, "short"[:i])
			conns = append(conns, c)
		}
		tr.peeked(5, netactor.Counts{PeekLate: 5})
		home := ""
		for i, c := range conns {
			_, _ = io.WriteString(c, "\n")
			b, _ := io.ReadAll(c)
			id, said, _ := strings.Cut(string(b), ":")
			if home == "" {
				home = id
			}
			if said != "short"[:i] || id != home { // by the client's address, the same for all
				t.Errorf("answer %q, the first was of %s", b, home)
			}
		}
	})
	t.Run("half closed", func(t *testing.T) {
		tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 6, Timeout: time.Minute}, netactor.Functions{}, 2, serveWhat)
		for i, s := range []string{"", "abc", "abcdef"} {
			c := dial(t, netAddr(addr)).(*net.TCPConn)
			_, _ = io.WriteString(c, s)
			if i == 1 {
				until(t, "it to be waited for", func() bool { return tr.stats().Counts.Peeking == 1 })
			}
			_ = c.CloseWrite()
			if b, err := io.ReadAll(c); !strings.HasSuffix(string(b), ":"+s) {
				t.Errorf("answer %q, %v", b, err)
			}
		}
		tr.peeked(3, netactor.Counts{Peeked: 1, PeekNone: 2})
	})
	t.Run("reset", func(t *testing.T) {
		tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 6, Timeout: time.Minute}, netactor.Functions{}, 2, serveWhat)
		const n = 5
		var conns []net.Conn
		for range n {
			conns = append(conns, dial(t, netAddr(addr)))
		}
		until(t, "them to be waited for", func() bool { return tr.stats().Counts.Peeking == n })
		for _, c := range conns {
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		until(t, "the resets", func() bool { return tr.stats().Counts.Reset == n })
		says(t, addr, "abcdef\n")
		tr.peeked(1, netactor.Counts{Peeked: 1, Reset: n})
	})
	t.Run("unix", func(t *testing.T) {
		tr := newTree(t, false)
		r := netactor.Request{Network: "unix", Address: filepath.Join(t.TempDir(), "s"), Policy: netactor.Hash, Peek: netactor.Peek{By: netactor.PeekBytes, Bytes: 2, Timeout: time.Minute}}
		for i := range 2 {
			go serveWhat(tr.worker(i).mustListen(r), fmt.Sprint(i))
		}
		tr.joined(2)
		for range 4 {
			c := dial(t, &net.UnixAddr{Net: "unix", Name: r.Address})
			for _, s := range []string{"a", "b", "\n"} {
				_, _ = io.WriteString(c, s)
			}
			if b, _ := io.ReadAll(c); !strings.HasSuffix(string(b), ":ab") {
				t.Errorf("answer %q", b)
			}
		}
		tr.peeked(4, netactor.Counts{Peeked: 4})
	})
}

// Clients that send nothing, up to the bound and above it, block no other client: they take no
// worker's room, and a client that sends its bytes is served by its key. Nothing spins for the
// silent ones.
func TestPeekSlowloris(t *testing.T) {
	var calls atomic.Int64
	const limit, slow = 8, 40
	tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 6, Timeout: time.Minute}, netactor.Functions{}, 2, serveWhat, func(tr *tree) {
		tr.hooks.Accept = counting(&calls)
	})
	a, _ := inspect.Listener(tr.disp, 1)
	a.SetPeekLimit(limit)
	for range limit {
		dial(t, netAddr(addr))
	}
	until(t, "them to be waited for", func() bool { return tr.stats().Counts.Peeking == limit })
	for _, w := range tr.stats().Workers {
		if w.Counts.Offered+w.Counts.Open() != 0 {
			t.Errorf("a worker has been given something: %+v", w)
		}
	}
	for range slow - limit { // above the bound: placed by the default, and the worker waits for them
		dial(t, netAddr(addr))
	}
	until(t, "the others to be placed", func() bool { return tr.stats().Counts.PeekOver == slow-limit })
	const n = 50
	home := ""
	for range n { // bytes that are sent at once are seen at once; otherwise the default places it here, as address
		id, said, _ := strings.Cut(says(t, addr, "abcdef\n"), ":")
		if home == "" {
			home = id
		}
		if said != "abcdef" {
			t.Fatalf("the worker has read %q", said)
		}
	}
	c := tr.settled(slow - limit + n).Counts
	if c.Peeking != limit || c.Peeked+c.PeekOver != slow-limit+n || !c.Balanced() {
		t.Errorf("%+v", c)
	}
	if got := calls.Load(); got > 4*(slow+n) {
		t.Errorf("%d calls of accept4 for %d connections", got, slow+n)
	}
}

// A client that sends one byte at a time costs one look for each byte, and no more: nothing spins
// for the unread bytes.
func TestPeekDoesNotSpin(t *testing.T) {
	var looks atomic.Int64
	first := func(b []byte) (uint64, netactor.PeekVerdict) {
		looks.Add(1)
		if len(b) < 200 {
			return 0, netactor.PeekMore
		}
		return 1, netactor.PeekKeyed
	}
	tr, addr := peekTree(t, netactor.Peek{By: netactor.PeekFirst, Timeout: time.Minute}, netactor.Functions{First: first}, 1, serveWhat)
	c := dial(t, netAddr(addr))
	for range 100 {
		_, _ = io.WriteString(c, "x")
	}
	until(t, "the bytes to be seen", func() bool { return looks.Load() > 0 && tr.stats().Counts.Peeking == 1 })
	for range 20 { // other events while it waits
		says(t, addr, strings.Repeat("y", 200), "\n")
	}
	_, _ = io.WriteString(c, strings.Repeat("x", 100)+"\n")
	if b, err := io.ReadAll(c); len(b) != 202 || err != nil {
		t.Errorf("answer of %d bytes, %v", len(b), err)
	}
	tr.peeked(21, netactor.Counts{Peeked: 21})
	if n := looks.Load(); n > 100+1+20*2+1 {
		t.Errorf("%d looks at 101 segments and 40", n)
	}
}

// A worker that dies gives back its unclaimed offers: another worker serves them, by the same key.
func TestPeekDeath(t *testing.T) {
	tr := newTree(t, false, func(tr *tree) { tr.claim = -1 }) // only death brings back
	r := loopback
	r.Policy, r.Peek = netactor.Hash, netactor.Peek{By: netactor.PeekBytes, Bytes: 4, Timeout: time.Minute}
	workers := make([]*testWorker, 3)
	lns := make([]net.Listener, 3)
	for i := range workers {
		workers[i] = tr.worker(i)
		lns[i] = workers[i].mustListen(r)
		r.Address = lns[i].Addr().String()
	}
	tr.joined(3)
	const n = 6
	var conns []net.Conn
	for i := range n {
		c := dial(t, netAddr(r.Address))
		_, _ = fmt.Fprintf(c, "same%d\n", i)
		conns = append(conns, c)
	}
	home := -1
	until(t, "the offers", func() bool {
		for i, w := range tr.stats().Workers {
			if w.Counts.Offered == n {
				home = i
			}
		}
		return home >= 0
	})
	workers[home].kill()
	heir := -1
	until(t, "another to be offered them", func() bool {
		for _, w := range tr.stats().Workers {
			if w.Counts.Offered == n {
				heir = w.Worker.Slot
			}
		}
		return heir >= 0
	})
	for i, ln := range lns {
		if i != home {
			go serveWhat(ln, fmt.Sprint(i))
		}
	}
	for i, c := range conns {
		b, err := io.ReadAll(c)
		if string(b) != fmt.Sprintf("%d:same%d", heir, i) {
			t.Errorf("answer %q, %v", b, err)
		}
	}
	tr.peeked(n, netactor.Counts{Peeked: n})
}

// A listener that drains waits for the connections that have not sent enough, for at most their
// Timeout. If its workers are gone, or it is closed at once, it closes them. The counts balance,
// and nothing leaks.
func TestPeekDrain(t *testing.T) {
	const n = 4
	begin := func(t *testing.T, p netactor.Peek) (*tree, []net.Conn) {
		tr, addr := peekTree(t, p, netactor.Functions{}, 2, serveWhat)
		var conns []net.Conn
		for range n {
			conns = append(conns, dial(t, netAddr(addr)))
		}
		until(t, "them to be waited for", func() bool {
			c := tr.stats().Counts // on a slow machine the time of the first may be over
			return c.Peeking+int(c.PeekLate) == n
		})
		return tr, conns
	}
	last := func(tr *tree) inspect.AcceptorView {
		a, _ := inspect.Listener(tr.disp, 1)
		return a
	}
	t.Run("those that speak are served", func(t *testing.T) {
		tr, conns := begin(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 4, Timeout: time.Minute})
		a := last(tr)
		done := make(chan error, 1)
		go func() { done <- tr.disp.Shutdown(testContext(t)) }()
		<-a.Closed // its port is free, and its connections are still there
		for _, c := range conns {
			_, _ = io.WriteString(c, "abcd\n")
			if b, err := io.ReadAll(c); !strings.HasSuffix(string(b), ":abcd") {
				t.Errorf("answer %q, %v", b, err)
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if c := a.Counts().(netactor.Counts); c.Claimed != n || c.Peeked != n || !c.Balanced() {
			t.Errorf("%+v", c)
		}
	})
	t.Run("those that do not have their time", func(t *testing.T) {
		tr, conns := begin(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 4, Timeout: 200 * time.Millisecond})
		a := last(tr)
		if err := tr.disp.Shutdown(testContext(t)); err != nil {
			t.Error(err)
		}
		if c := a.Counts().(netactor.Counts); c.Claimed != n || c.PeekLate != n || !c.Balanced() {
			t.Errorf("%+v", c)
		}
		for _, c := range conns {
			_, _ = io.WriteString(c, "\n")
			if b, err := io.ReadAll(c); !strings.HasSuffix(string(b), ":") {
				t.Errorf("answer %q, %v", b, err)
			}
		}
	})
	ends := func(t *testing.T, conns []net.Conn, a inspect.AcceptorView) {
		for _, c := range conns {
			if b, err := io.ReadAll(c); len(b) > 0 {
				t.Errorf("answer %q, %v", b, err)
			}
		}
		if c := a.Counts().(netactor.Counts); c.Dropped != n || !c.Balanced() {
			t.Errorf("%+v", c)
		}
	}
	t.Run("the shutdown's time is over", func(t *testing.T) {
		tr, conns := begin(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 4, Timeout: time.Minute})
		a := last(tr)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- tr.disp.Shutdown(ctx) }()
		<-a.Closed
		cancel()
		if err := <-done; err == nil {
			t.Error("no error though its time was over")
		}
		ends(t, conns, a)
	})
	t.Run("nobody is left to take them", func(t *testing.T) {
		tr, conns := begin(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 4, Timeout: time.Minute})
		a := last(tr)
		go func() { _ = tr.disp.Shutdown(testContext(t)) }()
		<-a.Closed
		for _, w := range tr.workers {
			w.kill()
		}
		ends(t, conns, a)
		<-a.Idle
	})
	t.Run("the listener process dies", func(t *testing.T) {
		tr, conns := begin(t, netactor.Peek{By: netactor.PeekBytes, Bytes: 4, Timeout: time.Minute})
		addr := conns[0].RemoteAddr().String()
		tr.killListener()
		for _, c := range conns {
			if b, err := io.ReadAll(c); len(b) > 0 {
				t.Errorf("answer %q, %v", b, err)
			}
		}
		tr.startListener()
		tr.joined(2)
		if s := says(t, addr, "abcd\n"); !strings.HasSuffix(s, ":abcd") {
			t.Errorf("answer %q", s)
		}
	})
}

// A peeking connection is turned away if a limit has been reached while it waited, as a new
// connection is.
func TestPeekAtLimit(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy, r.Peek = netactor.Hash, netactor.Peek{By: netactor.PeekBytes, Bytes: 1, Timeout: time.Minute}
	r.Limits = netactor.Limits{PerWorker: 1, AtLimit: netactor.AnswerAtLimit, Answer: "full"}
	ln := tr.worker(0).mustListen(r)
	tr.joined(1)
	held := hold(ln)
	early := dial(t, ln.Addr())
	until(t, "it to be waited for", func() bool { return tr.stats().Counts.Peeking == 1 })
	says1 := dial(t, ln.Addr())
	_, _ = io.WriteString(says1, "x")
	c := <-held
	tr.settled(1)
	_, _ = io.WriteString(early, "x")
	if b, err := io.ReadAll(early); string(b) != "full" {
		t.Errorf("answer %q, %v", b, err)
	}
	c.Close()
	if st := tr.settled(1).Counts; st.AtPerWorker != 1 || st.Accepted != 2 || st.Peeking != 0 {
		t.Errorf("%+v", st)
	}
}
