//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// outcome is what the clients of one process saw; see the package comment.
type outcome struct {
	Counts map[string]int
	Idle   []float64 // of each connection that was closed, in milliseconds
	Plain  []float64 // how long each plain request took, in microseconds
}

// clients are those of one process.
type clients struct {
	addr string
	book *book
	next atomic.Int64  // number of the next request
	end  int64         // the first number of the next process
	over chan struct{} // closed when each is to ask for the last time

	mu sync.Mutex
	outcome
}

// A client asks in one way, over one connection at a time.
type client struct {
	*clients
	kind    string
	pause   func() time.Duration
	conn    net.Conn // nil: it is not connected
	answers *bufio.Reader
	last    time.Time // when the last answer was there
	bye     bool      // it said Connection: close
}

// runClients is a client process.
func runClients(b *book, part int) error {
	cs := &clients{addr: os.Getenv(addrVar), book: b, over: make(chan struct{})}
	cs.Counts = make(map[string]int)
	share := int64(maxRequests / *processes)
	cs.next.Store(int64(part) * share)
	cs.end = int64(part+1) * share
	var connected, all sync.WaitGroup
	run := func(n int, f func(i int, connected func())) {
		for i := part; i < n; i += *processes {
			connected.Add(1)
			all.Go(func() { f(i, sync.OnceFunc(connected.Done)) })
		}
	}
	run(*idle, func(_ int, connected func()) {
		(&client{clients: cs, kind: "idle"}).run(connected, func() time.Duration { return *quiet/2 + rand.N(*quiet) })
	})
	run(*active, func(i int, connected func()) {
		(&client{clients: cs, kind: kinds[i%len(kinds)]}).run(connected, func() time.Duration { return rand.N(*pause) })
	})
	run(*hijacked, func(_ int, connected func()) { cs.echoes(connected) })
	connected.Wait()
	fmt.Println("connected")
	_, _ = io.Copy(io.Discard, os.Stdin)
	close(cs.over)
	all.Wait()
	return json.NewEncoder(os.Stdout).Encode(&cs.outcome)
}

// kinds are the ways in which active clients ask.
var kinds = []string{"plain", "byte by byte", "pipelined", "chunked", "expect", "head", "slow"}

const (
	patience = 20 * time.Second // for an answer
	slice    = 2 * time.Second  // of a pause, after each of which a client looks whether it is over
)

func (c *client) run(connected func(), pause func() time.Duration) {
	c.ask()
	connected()
	for over := false; !over; {
		over = c.wait(pause())
		c.ask()
	}
	c.close()
}

func (cs *clients) count(what ...string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, k := range what {
		cs.Counts[k]++
	}
}

func (cs *clients) note(vs *[]float64, v float64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	*vs = append(*vs, v)
}

func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.conn = nil
}

// connect connects until it succeeds.
func (cs *clients) connect() net.Conn {
	for {
		conn, err := net.Dial("tcp", cs.addr)
		if err == nil {
			return conn
		}
		cs.count("refused")
		time.Sleep(10 * time.Millisecond)
	}
}

// wait pauses, and sees when the connection is closed meanwhile. It reports whether the next
// request is the last.
func (c *client) wait(d time.Duration) bool {
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if c.conn == nil {
			time.Sleep(min(left, slice))
		} else {
			_ = c.conn.SetReadDeadline(time.Now().Add(min(left, slice)))
			if _, err := c.answers.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
				c.count("closed", c.kind+" closed: "+why(err))
				c.note(&c.Idle, time.Since(c.last).Seconds()*1e3)
				c.close()
				continue
			}
		}
		select {
		case <-c.over:
			return true
		default:
		}
		if left <= slice {
			return false
		}
	}
}

// ask makes a request, or three.
func (c *client) ask() {
	if c.conn == nil {
		c.conn = c.connect()
		c.answers = bufio.NewReaderSize(c.conn, 512)
	}
	n, method, body := 1, http.MethodGet, ""
	switch c.kind {
	case "pipelined":
		n = 3
	case "head":
		method = http.MethodHead
	case "chunked", "expect":
		method, body = http.MethodPost, strings.Repeat("x", 300)
	}
	first := int(c.next.Add(int64(n))) - n
	if first+n > int(c.end) {
		fmt.Fprintln(os.Stderr, "kept: too many requests for the book")
		os.Exit(1)
	}
	began := time.Now()
	_ = c.conn.SetDeadline(began.Add(patience))
	err := c.send(first, n, method, body)
	for id := first; id < first+n; id++ {
		begun, bye := false, false
		if err == nil {
			begun, bye, err = c.answer(id, method, len(body))
		}
		switch {
		case err == nil:
			c.count("answered")
			if c.kind == "plain" {
				c.note(&c.Plain, float64(time.Since(began).Microseconds()))
			}
			if bye {
				c.count("goodbye")
				err = errGoodbye // to those behind it
			}
		case errors.Is(err, errWrong):
			c.count("wrong", c.kind+" "+err.Error())
		case begun:
			c.count("cut", c.kind+" cut: "+why(err))
		default:
			c.count("lost", c.kind+" lost: "+why(err))
		}
	}
	c.last = time.Now()
	if err != nil {
		c.close()
	}
}

// send sends n requests, in the way of the client.
func (c *client) send(id, n int, method, body string) (err error) {
	write := func(s string) {
		if err == nil {
			_, err = io.WriteString(c.conn, s)
		}
	}
	ms := 0
	if c.kind == "slow" {
		ms = 20
	}
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s /%d/%d HTTP/1.1\r\nHost: kept\r\n", method, id+i, ms)
		switch c.kind {
		case "chunked":
			b.WriteString("Transfer-Encoding: chunked\r\n")
		case "expect":
			fmt.Fprintf(&b, "Expect: 100-continue\r\nContent-Length: %d\r\n", len(body))
		}
		b.WriteString("\r\n")
	}
	switch head := b.String(); c.kind {
	case "byte by byte":
		for i := range len(head) {
			write(head[i : i+1])
			time.Sleep(time.Millisecond)
		}
	case "pipelined":
		write(head[:len(head)-20])
		time.Sleep(2 * time.Millisecond)
		write(head[len(head)-20:])
	case "chunked":
		write(head)
		for _, part := range []string{body[:100], body[100:]} {
			time.Sleep(time.Millisecond)
			write(fmt.Sprintf("%x\r\n%s\r\n", len(part), part))
		}
		write("0\r\n\r\n")
	case "expect":
		write(head)
		if err == nil {
			var resp *http.Response
			if resp, err = http.ReadResponse(c.answers, nil); err == nil && resp.StatusCode != http.StatusContinue {
				err = fmt.Errorf("%w: %s in place of 100", errWrong, resp.Status)
			}
		}
		write(body)
	default:
		write(head)
	}
	return err
}

var (
	errWrong   = errors.New("wrong")
	errGoodbye = errors.New("an earlier answer said Connection: close")
)

// answer reads the answer to one request. begun reports whether some of it came, bye whether it is
// the last one.
func (c *client) answer(id int, method string, body int) (begun, bye bool, err error) {
	if _, err := c.answers.Peek(1); err != nil {
		return false, false, err
	}
	resp, err := http.ReadResponse(c.answers, &http.Request{Method: method})
	if err != nil {
		return true, false, err
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return true, false, err
	}
	got, want := fmt.Sprintf("%s %s %s", resp.Status, resp.Header.Get("X-Request"), b), fmt.Sprintf("200 OK %d ", id)
	if method != http.MethodHead {
		want += fmt.Sprintln(body)
	}
	if times := c.book.executed[id].Load(); got != want || times != 1 {
		return true, false, fmt.Errorf("%w: %q, executed %d times", errWrong, got, times)
	}
	return true, resp.Close, nil
}

// why is an error in few words, without what differs from one to the next.
func why(err error) string {
	for _, e := range []error{io.ErrUnexpectedEOF, io.EOF, syscall.ECONNRESET, syscall.EPIPE, os.ErrDeadlineExceeded, errGoodbye} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return err.Error()
}

// echoes is a client of the handler that takes connections over.
func (cs *clients) echoes(connected func()) {
	for {
		conn := cs.connect()
		cs.count("hijacked")
		r := bufio.NewReader(conn)
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err := io.WriteString(conn, "GET /echo HTTP/1.1\r\nHost: kept\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		if err == nil {
			_, err = http.ReadResponse(r, nil)
		}
		for connected(); err == nil; {
			select {
			case <-cs.over:
				_ = conn.Close()
				return
			case <-time.After(20 * time.Millisecond):
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			if _, err = io.WriteString(conn, "a line\n"); err == nil {
				_, err = r.ReadString('\n')
			}
		}
		_ = conn.Close()
		cs.count("hijacked ended: " + why(err))
	}
}
