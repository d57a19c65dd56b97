package testkit

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

// Deadline bounds every wait in these tests. It measures nothing.
const Deadline = 8 * time.Second

// Context returns a context that ends with the deadline of the tests.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	t.Cleanup(cancel)
	return ctx
}

// Until waits for cond, looking again whenever the scheduler lets it.
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(Deadline)
	for !cond() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("timed out waiting for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

// ServeID accepts on ln until it is closed, and writes id to each connection.
func ServeID(ln net.Listener, id string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, id)
		c.Close()
	}
}

// Hold accepts on ln until it is closed, and sends the accepted connections to the channel.
func Hold(ln net.Listener) <-chan net.Conn {
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

// Dial connects to addr; the connection is closed with the test.
func Dial(t testing.TB, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(addr.Network(), addr.String(), Deadline)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(Deadline))
	return c
}

// Ask connects and reads to the end.
func Ask(t testing.TB, network, addr string) string {
	t.Helper()
	s, err := TryAsk(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TryAsk connects and reads to the end.
func TryAsk(network, addr string) (string, error) {
	c, err := net.DialTimeout(network, addr, Deadline)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(Deadline))
	b, err := io.ReadAll(c)
	return string(b), err
}

// CheckLeaks compares descriptors and goroutines at the end of the test with those of now. Call it
// before the test opens anything.
func CheckLeaks(t testing.TB) {
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
		Until(t, fmt.Sprintf("descriptors to be %d again (now %d) and goroutines %d (now %d)", fds, countFDs(), goroutines, runtime.NumGoroutine()),
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

// Handle returns a handle of v, owned by the caller.
func Handle(t testing.TB, v any) *fdipc.Handle {
	t.Helper()
	h, err := fdipc.HandleOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// proxyV2 is what version 2 of the PROXY protocol begins with.
const ProxyV2 = "\r\n\r\n\x00\r\nQUIT\n"
