package netactor_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// deadline bounds every wait in these tests. It measures nothing.
const deadline = time.Minute

// testContext returns a context that ends with the deadline of the tests.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// until waits for cond, looking again whenever the scheduler lets it.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(deadline)
	for !cond() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("timed out waiting for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

// serveID accepts on ln until it is closed, and writes id to each connection.
func serveID(ln net.Listener, id string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, id)
		c.Close()
	}
}

// hold accepts on ln until it is closed, and sends the accepted connections to the channel.
func hold(ln net.Listener) <-chan net.Conn {
	held := make(chan net.Conn, 1000)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			held <- c
		}
	}()
	return held
}

// dial connects to addr; the connection is closed with the test.
func dial(t testing.TB, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(addr.Network(), addr.String(), deadline)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(deadline))
	return c
}

// ask connects and reads to the end.
func ask(t testing.TB, network, addr string) string {
	t.Helper()
	s, err := tryAsk(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tryAsk connects and reads to the end.
func tryAsk(network, addr string) (string, error) {
	c, err := net.DialTimeout(network, addr, deadline)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	b, err := io.ReadAll(c)
	return string(b), err
}

// checkLeaks compares descriptors and goroutines at the end of the test with those of now. Call it
// before the test opens anything.
func checkLeaks(t testing.TB) {
	t.Helper()
	// Make the Go runtime's poller and the like now, so that they do not count as leaks.
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
	fds, goroutines := countFDs(), runtime.NumGoroutine()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		until(t, fmt.Sprintf("descriptors to be %d again (now %d) and goroutines %d (now %d)", fds, countFDs(), goroutines, runtime.NumGoroutine()),
			func() bool { runtime.GC(); return countFDs() <= fds && runtime.NumGoroutine() <= goroutines })
	})
}

func countFDs() int {
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(e)
}

// handleOf returns a handle of v, owned by the caller.
func handleOf(t testing.TB, v any) *fdipc.Handle {
	t.Helper()
	h, err := fdipc.HandleOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// proxyV2 is what version 2 of the PROXY protocol begins with.
const proxyV2 = "\r\n\r\n\x00\r\nQUIT\n"
