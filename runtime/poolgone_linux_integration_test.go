//go:build linux

package coppice_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

func init() {
	once := supervisor.Intensity{Period: time.Second} // no restart
	serveFront := func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listener(ctx, "front")
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, name(w))
	}
	fails := coppice.Pool{Name: "fails", Size: 1, Intensity: once, Worker: func(ctx context.Context, w *coppice.Worker) error {
		own, err := w.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		go func() { _ = w.Serve(ctx, own, name(w)) }() // ends with the worker
		return serveFront(ctx, w)
	}}
	trees["a pool gives up for good"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "front", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.Supervisor{Name: "group", Restart: supervisor.Temporary, Intensity: once, Children: []coppice.ChildSpec{fails}},
			coppice.Pool{Name: "later", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if err := w.Ready(); err != nil {
					return err
				}
				f, err := os.Open(os.Getenv(gateVar)) // a FIFO: until a process opens it for writing
				if err != nil {
					return err
				}
				_ = f.Close() // it was only read
				return serveFront(ctx, w)
			}},
		}}
	}
	trees["a pool cannot come back at once"] = func() coppice.Config {
		return coppice.Config{Intensity: supervisor.Intensity{Max: 1000, Period: time.Minute}, Children: []coppice.ChildSpec{coppice.Pool{
			Name: "fails", Size: 1, Intensity: once, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if _, err := os.Stat(os.Getenv(gateVar)); err == nil {
					return errors.New("not yet")
				}
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			},
		}}}
	}
	trees["a pool ends the tree"] = func() coppice.Config {
		return coppice.Config{Intensity: once, Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "front", Network: "tcp", Address: "127.0.0.1:0"},
			fails,
			coppice.Pool{Name: "drains", Size: 1, Shutdown: runtimetest.Patience, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/hold" {
						return
					}
					_ = http.NewResponseController(rw).Flush()
					f, err := os.Open(os.Getenv(gateVar)) // a FIFO
					if err == nil {
						_ = f.Close() // it was only read
						_, _ = io.WriteString(rw, "done")
					}
				})})
			}},
		}}
	}
}

// addrs returns the addresses of the sockets that the child at a path shows.
func addrs(t coppice.Tree, name string) (found []string) {
	t.Walk(func(n coppice.Tree) {
		if n.Name == name {
			for _, l := range n.Listeners {
				found = append(found, l.Addr.String())
			}
		}
	})
	return found
}

// makeGate makes the FIFO of gateVar and returns a function that opens it.
func makeGate(t *testing.T) (open func()) {
	gate := filepath.Join(t.TempDir(), "gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(gateVar, gate)
	return func() {
		f, err := os.OpenFile(gate, os.O_RDWR, 0) // with O_RDWR the open does not wait
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { f.Close() })
	}
}

// killWithClients stops the worker of pool fails, connects clients to all of its sockets, kills it,
// and waits until none of the clients hangs and no other is taken.
func killWithClients(t *testing.T, rt *coppice.Runtime, at []string) {
	t.Helper()
	pid := 0
	rt.Snapshot().Walk(func(n coppice.Tree) {
		if strings.HasSuffix(n.Name, "fails/0") {
			pid = n.PID
		}
	})
	if pid == 0 {
		t.Fatalf("no worker:\n%s", rt.Snapshot())
	}
	runtimetest.Freeze(t, pid)
	const each = 40 // more than are offered at once: the rest is in the backlog
	errs := make(chan error, each*len(at))
	for _, addr := range at {
		for range each {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
			go func() {
				_, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
				if err == nil {
					_, err = c.Read(make([]byte, 1))
				}
				errs <- err
			}()
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range cap(errs) {
		if err := <-errs; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a client of the pool that gave up: %v", err)
		}
	}
	for _, addr := range at {
		runtimetest.Eventually(t, "later clients of "+addr+" to be refused", func() bool {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
}

// TestGivesUpForGood: a pool whose supervisor is temporary gives up, and the tree goes on. Its
// clients do not hang: those in the backlog are reset, later ones refused. The tree shows its
// sockets before and after, and another pool can serve the listener of the tree.
func TestGivesUpForGood(t *testing.T) {
	open := makeGate(t)
	p := startTree(t, "a pool gives up for good")
	front, own := addrs(p.Snapshot(), "front"), addrs(p.Snapshot(), "fails")
	if len(front) != 1 || len(own) != 1 || !strings.Contains(p.Snapshot().String(), own[0]) {
		t.Fatalf("the tree does not show its sockets:\n%s", p.Snapshot())
	}
	killWithClients(t, p.Runtime, append(own, front...))
	runtimetest.Eventually(t, "the tree to show what is left", func() bool {
		s := p.Snapshot()
		return len(p.Listeners()) == 1 && strings.Contains(s.String(), front[0]+" round-robin (paused, clients are refused)")
	})
	b, err := json.Marshal(p.Snapshot())
	if err != nil || !strings.Contains(string(b), `"paused":true,"refuses":true`) {
		t.Errorf("as JSON: %s, %v", b, err)
	}
	open()
	runtimetest.Eventually(t, "another pool to serve", func() bool { return !p.Listeners()[0].Paused })
	if got := get(t, front[0]); got != "0" {
		t.Errorf("answer %q", got)
	}
}

// TestRestartOfPoolFails: a pool gives up, and its restart fails more than once: its socket stays,
// and its clients wait until it is back.
func TestRestartOfPoolFails(t *testing.T) {
	gate := filepath.Join(t.TempDir(), "gate")
	t.Setenv(gateVar, gate)
	p := startTree(t, "a pool cannot come back at once")
	own := addrs(p.Snapshot(), "fails")[0]
	sub := p.Events(coppice.FromNow)
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.pid("fails/0"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for failed := 0; failed < 2; {
		if ev := next(t, sub, coppice.ChildStartFailed); ev.Path == "fails" {
			failed++
		}
	}
	c, err := net.Dial("tcp", own)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(answer), "\r\n\r\n0") {
		t.Errorf("answer %q, %v", answer, err)
	}
}

// TestGivesUpWhileOthersDrain: the same when the tree ends because of the pool, and another pool
// has a request under way: the clients of the first do not wait for that.
func TestGivesUpWhileOthersDrain(t *testing.T) {
	open := makeGate(t)
	t.Setenv(treeVar, "a pool ends the tree")
	rt, err := coppice.Start(t.Context(), withReports(trees["a pool ends the tree"](), nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		_ = rt.Shutdown(now) // after a test that failed
	})
	s := rt.Snapshot()
	drains := addrs(s, "drains")[0]
	held, err := http.Get("http://" + drains + "/hold")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Body.Close()
	killWithClients(t, rt, append(addrs(s, "fails"), addrs(s, "front")...))
	runtimetest.Eventually(t, "clients of the pool that drains to be refused", func() bool {
		c, err := net.Dial("tcp", drains)
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	select {
	case <-rt.Done():
		t.Fatal("the tree has ended with a request under way")
	default:
	}
	open()
	if b, err := io.ReadAll(held.Body); err != nil || string(b) != "done" {
		t.Errorf("the request under way: %q, %v", b, err)
	}
	if err := rt.Wait(); err == nil {
		t.Error("the tree ended without a reason")
	}
}
