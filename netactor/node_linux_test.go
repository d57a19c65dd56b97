package netactor_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// The tests of this file are scenarios of Node's own tests of its cluster module;
// docs/node-cluster-tests.md has the list. Each is named by its number there. Master, listener
// process and workers are in one process, joined by socket pairs; tests that need a separate
// process are in files named integration_test.go.

// scenario is one scenario.
type scenario struct {
	name string
	run  func(t *testing.T)
}

func runScenarios(t *testing.T, all []scenario) {
	t.Helper()
	for _, s := range all {
		t.Run(s.name, s.run)
	}
}

// eachWay runs f with the policy that stands for Node's round robin, the policy for its shared
// handles, and the policy for its reusePort.
func eachWay(f func(t *testing.T, tr *tree, r netactor.Request)) func(t *testing.T) {
	return with(f, netactor.RoundRobin, netactor.Shared, netactor.ReusePort)
}

// bothWays is eachWay without SO_REUSEPORT.
func bothWays(f func(t *testing.T, tr *tree, r netactor.Request)) func(t *testing.T) {
	return with(f, netactor.RoundRobin, netactor.Shared)
}

func with(f func(t *testing.T, tr *tree, r netactor.Request), policies ...netactor.Policy) func(t *testing.T) {
	return func(t *testing.T) {
		for _, p := range policies {
			t.Run(p.String(), func(t *testing.T) {
				r := loopback
				r.Policy = p
				f(t, newTree(t, false), r)
			})
		}
	}
}

// shared runs f with Shared alone.
func shared(f func(t *testing.T, tr *tree, r netactor.Request)) func(t *testing.T) {
	return func(t *testing.T) {
		r := loopback
		r.Policy = netactor.Shared
		f(t, newTree(t, false), r)
	}
}

func at(r netactor.Request, network, address string) netactor.Request {
	r.Network, r.Address = network, address
	return r
}

// wait fails unless an error comes from ch, and is nil.
func wait(t *testing.T, ch <-chan error) {
	t.Helper()
	if err := <-ch; err != nil {
		t.Error(err)
	}
}

// drain starts the drain of a worker.
func (w *testWorker) drain() <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- w.ls.Drain(testContext(w.tree.t)) }()
	return ch
}

// closedAtMaster waits until the master holds no socket.
func (tr *tree) closedAtMaster() {
	tr.t.Helper()
	until(tr.t, "the master to hold no socket", func() bool { return len(tr.table.Sockets()) == 0 })
}

func TestNodeListen(t *testing.T) {
	runScenarios(t, []scenario{
		{"N5 two clusters on one port", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			ln := tr.worker(0).mustListen(r)
			go serveID(ln, "first")
			other := newTree(t, false, func(tr *tree) { tr.second = true })
			if _, err := other.worker(0).listen(at(r, "tcp", ln.Addr().String())); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v, want EADDRINUSE", err)
			}
			if s := ask(t, "tcp", ln.Addr().String()); s != "first" {
				t.Errorf("answer %q", s)
			}
		})},
		{"N8 closed and bound to port 0 again", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			w := tr.worker(0)
			for range 3 {
				a, b := w.mustListen(r), w.mustListen(r)
				if a.Addr().String() == b.Addr().String() {
					t.Fatalf("both on %s", a.Addr())
				}
				a.Close()
				b.Close()
			}
			tr.closedAtMaster()
		})},
		{"N26 path in use by another process", bothWays(func(t *testing.T, tr *tree, r netactor.Request) {
			path := filepath.Join(t.TempDir(), "s")
			other, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if _, err := tr.worker(0).listen(at(r, "unix", path)); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v, want EADDRINUSE", err)
			}
		})},
		{"N27 N33 N64 port in use, then free", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			r = at(r, "tcp", other.Addr().String())
			w := tr.worker(0)
			for range 3 {
				_, err := w.listen(r)
				op, ok := errors.AsType[*net.OpError](err)
				sys, _ := errors.AsType[*os.SyscallError](err)
				if !ok || op.Op != "listen" || op.Addr.String() != r.Address || sys.Syscall != "bind" || !errors.Is(err, syscall.EADDRINUSE) {
					t.Fatalf("%#v", err)
				}
			}
			other.Close()
			go serveID(w.mustListen(r), "now")
			if s := ask(t, "tcp", r.Address); s != "now" {
				t.Errorf("answer %q", s)
			}
		})},
		{"N31 HTTP over a Unix socket has no remote address", bothWays(func(t *testing.T, tr *tree, r netactor.Request) {
			r = at(r, "unix", filepath.Join(t.TempDir(), "h"))
			w := tr.worker(0)
			got := make(chan string, 1)
			srv := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.RemoteAddr })}
			ln := w.mustListen(r)
			done := make(chan error, 1)
			go func() { done <- srv.Serve(ln) }()
			tp := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", r.Address)
			}}
			resp, err := (&http.Client{Transport: tp}).Get("http://unix/")
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if peer := <-got; peer != "" && peer != "@" {
				t.Errorf("remote address %q", peer)
			}
			tp.CloseIdleConnections()
			if err := srv.Shutdown(testContext(t)); err != nil {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
			until(t, "the path to be removed", func() bool { return errors.Is(connects2At("unix", r.Address), syscall.ENOENT) })
		})},
		{"N36 X8 mode bits of a path", bothWays(func(t *testing.T, tr *tree, r netactor.Request) {
			r = at(r, "unix", filepath.Join(t.TempDir(), "m"))
			r.Mode = 0o777
			tr.worker(0).mustListen(r)
			if fi, err := os.Stat(r.Address); err != nil || fi.Mode() != fs.ModeSocket|0o777 {
				t.Errorf("%v, %v", fi.Mode(), err)
			}
		})},
		{"N37 the port is known", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			ln := tr.worker(0).mustListen(r)
			info := tr.table.Sockets()
			if len(info) != 1 || portOf(t, info[0].Address) == 0 || ln.Addr().String() != info[0].Address {
				t.Errorf("%v, the worker has %s", info, ln.Addr())
			}
		})},
		{"N39 the first backlog holds", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			r.Backlog = 5
			addr := tr.worker(0).mustListen(r).Addr().String()
			r.Backlog = 50
			tr.worker(1).mustListen(at(r, "tcp", addr))
			ti, err := unix.GetsockoptTCPInfo(tr.everySocket()[0], unix.IPPROTO_TCP, unix.TCP_INFO)
			if err != nil || ti.Sacked != 5 {
				t.Errorf("backlog %d, %v; want 5", ti.Sacked, err)
			}
		})},
		{"N40 dual stack in three workers", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			needIPv6(t)
			addrs := map[string]bool{}
			var port int
			for i, a := range []string{":0", "[::]:0", "0.0.0.0:0"} { // three sockets in Node
				ln := tr.worker(i).mustListen(at(r, "tcp", a))
				addrs[ln.Addr().String()], port = true, portOf(t, ln.Addr().String())
				go serveID(ln, "6")
			}
			if len(addrs) != 1 {
				t.Errorf("addresses %v", addrs)
			}
			for _, a := range []string{"127.0.0.1", "[::1]"} {
				if s := ask(t, "tcp", fmt.Sprintf("%s:%d", a, port)); s != "6" {
					t.Errorf("answer %q", s)
				}
			}
		})},
		{"N41 a long path, relative to the worker's directory", bothWays(func(t *testing.T, tr *tree, r netactor.Request) {
			deep := filepath.Join(t.TempDir(), strings.Repeat("d", 90), strings.Repeat("e", 90))
			if err := os.MkdirAll(deep, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Chdir(deep)
			ln := tr.worker(0).mustListen(at(r, "unix", "sock"))
			go serveID(ln, "deep")
			if s := ask(t, "unix", "sock"); s != "deep" {
				t.Errorf("answer %q", s)
			}
			ln.Close()
			until(t, "the path to be removed", func() bool {
				_, err := os.Lstat(filepath.Join(deep, "sock"))
				return errors.Is(err, os.ErrNotExist)
			})
		})},
		{"N42 no address is port 0", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			a, b := tr.worker(0).mustListen(at(r, "tcp", "")), tr.worker(1).mustListen(at(r, "tcp", ""))
			if a.Addr().String() != b.Addr().String() || portOf(t, a.Addr().String()) == 0 {
				t.Errorf("%s and %s", a.Addr(), b.Addr())
			}
		})},
		{"N43 N138 sockets of their own on one port", func(t *testing.T) {
			tr := newTree(t, false)
			r := loopback
			r.Policy = netactor.ReusePort
			addrs := map[string]bool{}
			served := make(chan int, 200)
			for i := range 3 {
				ln := tr.worker(i).mustListen(r)
				addrs[ln.Addr().String()] = true
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						c.Close()
						served <- i
					}
				}()
			}
			if len(addrs) != 1 {
				t.Fatalf("addresses %v", addrs)
			}
			got := map[int]int{}
			for addr := range addrs {
				for range cap(served) {
					if s := ask(t, "tcp", addr); s != "" {
						t.Errorf("answer %q", s)
					}
				}
			}
			for range cap(served) {
				got[<-served]++
			}
			if len(got) != 3 {
				t.Errorf("served by %v, want all three", got)
			}
			if _, err := tr.worker(3).listen(at(r, "unix", "@x")); !errors.Is(err, syscall.EOPNOTSUPP) {
				t.Errorf("of a Unix socket: %v, want EOPNOTSUPP", err)
			}
		}},
		{"N57 N58 closed and opened again while another worker has it", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			a, b := tr.worker(0), tr.worker(1)
			addr := a.mustListen(r).Addr().String()
			for range 3 {
				ln := b.mustListen(r)
				if ln.Addr().String() != addr {
					t.Fatalf("%s, want %s", ln.Addr(), addr)
				}
				ln.Close()
			}
		})},
		{"N85 N86 IPv6 alone in three workers", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			needIPv6(t)
			for tries := 3; ; tries-- {
				addrs, port := map[string]bool{}, 0
				for i := range 3 {
					ln := tr.worker(i).mustListen(at(r, "tcp6", "[::]:0"))
					addrs[ln.Addr().String()], port = true, portOf(t, ln.Addr().String())
				}
				if len(addrs) != 1 {
					t.Errorf("addresses %v", addrs)
				}
				four, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port))
				if errors.Is(err, syscall.EADDRINUSE) && tries > 1 {
					continue // another program may have the port by IPv4: with the next one
				}
				if err != nil {
					t.Fatalf("the port by IPv4: %v", err)
				}
				four.Close()
				break
			}
		})},
		{"N87 W1 closes, W2 listens, W1 listens again", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			a, b := tr.worker(0), tr.worker(1)
			ln := a.mustListen(r)
			fixed := at(r, "tcp", ln.Addr().String())
			ln.Close()
			ln = a.mustListen(fixed)
			if _, err := a.listen(fixed); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("twice: %v", err)
			}
			ln.Close()
			b.mustListen(fixed)
			a.mustListen(fixed)
			if n := len(tr.table.Sockets()); n != 1 {
				t.Errorf("%d sockets", n)
			}
		})},
		{"N100 not a listening socket", bothWays(func(t *testing.T, tr *tree, r netactor.Request) {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			udp, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer udp.Close()
			r = at(r, "", "")
			for name, fd := range map[string]int{"bad number": 1 << 19, "not a socket": int(f.Fd()), "not a listener": fdOf(t, udp)} {
				r.FD = fd
				if _, err := tr.worker(0).listen(r); !errors.Is(err, syscall.EINVAL) {
					t.Errorf("%s: %v, want EINVAL", name, err)
				}
			}
		})},
		{"N101 N103 a listener of the worker's own", eachWay(func(t *testing.T, tr *tree, _ netactor.Request) {
			var addrs []string
			for i := range 2 {
				own, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				ln := tr.worker(i).ls.Adopt(own)
				go serveID(ln, "own")
				addrs = append(addrs, ln.Addr().String())
				if s := ask(t, "tcp", ln.Addr().String()); s != "own" {
					t.Errorf("answer %q", s)
				}
			}
			if addrs[0] == addrs[1] || len(tr.table.Sockets()) != 0 {
				t.Errorf("%v; the master has %v", addrs, tr.table.Sockets())
			}
		})},
		{"N104 closed before the reply", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			w := tr.worker(0)
			for range 20 {
				ctx, cancel := context.WithCancel(context.Background())
				go cancel()
				if ln, err := w.ls.Listen(ctx, r); err == nil {
					ln.Close()
				} else if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			tr.closedAtMaster()
		})},
		{"N108 a port of the worker's own clashes, a shared one does not", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			ln := tr.worker(0).mustListen(r)
			if own, err := net.Listen("tcp", ln.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v, %v", own, err)
			}
			tr.worker(1).mustListen(at(r, "tcp", ln.Addr().String()))
		})},
		{"N112 N142 twice in one worker", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			w := tr.worker(0)
			fixed := at(r, "tcp", w.mustListen(r).Addr().String())
			for range 2 {
				if _, err := w.listen(fixed); !errors.Is(err, syscall.EADDRINUSE) {
					t.Errorf("%v, want EADDRINUSE", err)
				}
			}
		})},
		{"N134 X10 a sibling asks for the number that port 0 got", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			addr := tr.worker(0).mustListen(r).Addr().String()
			if ln := tr.worker(1).mustListen(at(r, "tcp", addr)); ln.Addr().String() != addr {
				t.Errorf("%s, want %s", ln.Addr(), addr)
			}
			if ln := tr.worker(2).mustListen(r); ln.Addr().String() != addr {
				t.Errorf("port 0 gives %s, want %s", ln.Addr(), addr)
			}
		})},
	})
}

func TestNodeLeave(t *testing.T) {
	runScenarios(t, []scenario{
		{"N20 leaves while a listen is under way", shared(func(t *testing.T, tr *tree, r netactor.Request) {
			for range 20 {
				w := tr.worker(0)
				listened := make(chan struct{})
				go func() {
					defer close(listened)
					ln, err := w.listen(r)
					if err == nil {
						if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
							t.Errorf("accept: %v", err)
						}
					}
				}()
				wait(t, w.drain())
				<-listened
				w.gone(true)
			}
			tr.closedAtMaster()
		})},
		{"N21 one leaves while the next starts", shared(func(t *testing.T, tr *tree, r netactor.Request) {
			w := tr.worker(0)
			addr := w.mustListen(r).Addr().String()
			for range 20 {
				left := w.drain()
				next := tr.worker(0)
				ln := next.mustListen(at(r, "tcp", addr))
				wait(t, left)
				w.gone(true)
				if ln.Addr().String() != addr {
					t.Fatalf("%s, want %s", ln.Addr(), addr)
				}
				w = next
			}
		})},
		{"N22 a worker that never listened leaves", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			ln := tr.worker(0).mustListen(r)
			go serveID(ln, "stays")
			w := tr.worker(1)
			wait(t, w.drain())
			w.gone(true)
			if s := ask(t, "tcp", ln.Addr().String()); s != "stays" {
				t.Errorf("answer %q", s)
			}
		})},
		{"N25 eight workers, two servers each, all leave, and again", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			for range 3 {
				var workers []*testWorker
				addrs := map[string]bool{}
				for i := range 8 {
					w := tr.worker(i)
					for range 2 {
						ln := w.mustListen(r)
						addrs[ln.Addr().String()] = true
						go serveID(ln, fmt.Sprint(i))
					}
					workers = append(workers, w)
				}
				if len(addrs) != 2 {
					t.Fatalf("addresses %v", addrs)
				}
				for addr := range addrs {
					if r.Policy == netactor.RoundRobin {
						until(t, "all to take part", func() bool { return tr.joinedAt(addr) == 8 })
					}
					got := map[string]bool{}
					for range 8 {
						got[ask(t, "tcp", addr)] = true
					}
					if r.Policy == netactor.RoundRobin && len(got) != 8 {
						t.Errorf("answers of %v", got)
					}
				}
				var all []<-chan error
				for _, w := range workers {
					all = append(all, w.drain())
				}
				for i, w := range workers {
					wait(t, all[i])
					w.gone(true)
				}
				tr.closedAtMaster()
			}
		})},
		{"N65 N82 N83 leaves when its connections have ended", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			workers := []*testWorker{tr.worker(0), tr.worker(1)}
			for _, w := range workers {
				ln := w.mustListen(r) // alone: the other has not joined, or has left
				if r.Policy == netactor.RoundRobin {
					tr.joined(1)
				}
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				s, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				left := w.drain()
				if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("accept: %v", err)
				}
				select {
				case err := <-left:
					t.Fatalf("left (%v) with a connection open", err)
				default:
				}
				if _, err := io.WriteString(s, "bye"); err != nil {
					t.Error(err)
				}
				s.Close()
				wait(t, left)
				if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
					t.Errorf("%q, %v", b, err)
				}
				c.Close()
				tr.closedAtMaster()
			}
		})},
		{"N71 leaves when it cannot listen", shared(func(t *testing.T, tr *tree, r netactor.Request) {
			other, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			w := tr.worker(0)
			if _, err := w.listen(at(r, "tcp", other.Addr().String())); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("%v", err)
			}
			wait(t, w.drain())
			w.gone(false)
			tr.closedAtMaster()
		})},
	})
}

func TestNodeHandOver(t *testing.T) {
	runScenarios(t, []scenario{
		{"N1 a failed accept costs one connection at most", func(t *testing.T) {
			fail := []error{unix.ECONNABORTED, unix.EMFILE, unix.EPROTO, unix.ENFILE, unix.EINTR}
			tr := newTree(t, false, func(tr *tree) {
				tr.hooks.Accept = func(next func() (int, error)) (int, error) {
					if len(fail) > 0 {
						err := fail[0]
						fail = fail[1:]
						return -1, err
					}
					return next()
				}
			})
			ln := tr.worker(0).mustListen(loopback)
			go serveID(ln, "ok")
			for range 5 {
				if s := ask(t, "tcp", ln.Addr().String()); s != "ok" {
					t.Fatalf("answer %q", s)
				}
			}
			if c := tr.settled(5).Counts; c.Errors != 2 || c.Exhausted != 2 {
				t.Errorf("%+v", c)
			}
		}},
		{"N45 N95 no more connections than allowed, the others closed and counted", func(t *testing.T) {
			for _, limit := range []int{1, 9} {
				t.Run(fmt.Sprint(limit), func(t *testing.T) {
					tr := newTree(t, false)
					r := loopback
					r.Limits = netactor.Limits{PerWorker: limit, AtLimit: netactor.CloseAtLimit}
					ln := tr.worker(0).mustListen(r)
					held := hold(ln)
					tr.joined(1)
					var clients []net.Conn
					for range 10 {
						clients = append(clients, dial(t, ln.Addr()))
					}
					for range limit {
						defer (<-held).Close()
					}
					until(t, "all are accepted", func() bool { return tr.stats().Counts.Accepted == 10 })
					if c := tr.settled(limit).Counts; c.AtPerWorker != uint64(10-limit) {
						t.Errorf("%+v", c)
					}
					closed := 0
					for _, c := range clients[limit:] {
						if _, err := c.Read(make([]byte, 1)); err != nil && !isTimeout(err) {
							closed++
						}
					}
					if closed != 10-limit {
						t.Errorf("%d closed", closed)
					}
				})
			}
		}},
		{"N56 a connection that was sent, in an HTTP server", func(t *testing.T) {
			checkLeaks(t)
			got := make(chan net.Conn, 1)
			a, b := fdipc.Pipe(fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { f.Refuse(fdipc.ReasonUnknown) }}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
				c, err := f.Handles[0].Conn()
				if err != nil {
					t.Error(err)
				}
				got <- c
			}})
			defer func() { a.Close(); b.Close(); <-a.Done(); <-b.Done() }()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			answers := make(chan string, 1)
			go func() {
				c, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					answers <- err.Error()
					return
				}
				defer c.Close()
				fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
				b, err := io.ReadAll(c)
				answers <- fmt.Sprint(string(b), err)
			}()
			s, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if err := a.Send(testContext(t), &fdipc.Frame{Kind: wire.KindOffer, Handles: []*fdipc.Handle{handleOf(t, s)}}); err != nil {
				t.Fatal(err)
			}
			one := &oneConn{conns: make(chan net.Conn, 1), addr: ln.Addr()}
			one.conns <- <-got
			srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "passed") })}
			done := make(chan error, 1)
			go func() { done <- srv.Serve(one) }()
			if s := <-answers; !strings.HasPrefix(s, "HTTP/1.0 200") || !strings.HasSuffix(s, "passed<nil>") {
				t.Errorf("answer %q", s)
			}
			if err := srv.Shutdown(testContext(t)); err != nil {
				t.Error(err)
			}
			if err := <-done; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		}},
		{"N102 N115 a listener that a worker opened, in two", shared(func(t *testing.T, tr *tree, r netactor.Request) {
			raw, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			a, b := tr.worker(0), tr.worker(1)
			lna, err := a.ls.Share(testContext(t), netactor.Request{Name: "given", Policy: r.Policy}, raw)
			if err != nil {
				t.Fatal(err)
			}
			lnb := b.mustListen(netactor.Request{Name: "given"})
			addr := raw.Addr().String()
			for who, ln := range map[string]net.Listener{"a": lna, "b": lnb} { // in sequence, so that each has its turn
				accepted := make(chan error, 1)
				go func() {
					c, err := ln.Accept()
					if err == nil {
						_, err = io.WriteString(c, who)
						c.Close()
					}
					accepted <- err
				}()
				if s := ask(t, "tcp", addr); s != who {
					t.Errorf("answer %q, want %s", s, who)
				}
				wait(t, accepted)
			}
			lna.Close()
			lnb.Close()
			until(t, "the socket to be closed", func() bool { return connects2(addr) != nil })
		})},
		{"N105 TLS sessions are resumed by other workers", func(t *testing.T) {
			tr := newTree(t, false)
			cert := selfSigned(t)
			var key [32]byte // a worker has it from Config.Load, the same for all
			_, _ = rand.Read(key[:])
			var addr string
			for i := range 4 {
				conf := &tls.Config{Certificates: []tls.Certificate{cert}}
				conf.SetSessionTicketKeys([][32]byte{key})
				ln := tr.worker(i).mustListen(loopback)
				addr = ln.Addr().String()
				go serveID(tls.NewListener(ln, conf), fmt.Sprint(i))
			}
			tr.joined(4)
			resumed, by := 0, map[string]bool{}
			client := &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
			for range 16 {
				c, err := tls.Dial("tcp", addr, client)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(c) // leaves the connection to the next worker
				if err != nil {
					t.Fatal(err)
				}
				by[string(b)] = true
				if c.ConnectionState().DidResume {
					resumed++
				}
				c.Close()
			}
			if resumed != 15 || len(by) != 4 {
				t.Errorf("%d resumed of 16, by %d workers; want 15 and 4", resumed, len(by))
			}
		}},
		{"N106 dies with connections in its queue", func(t *testing.T) {
			tr := newTree(t, false)
			w := tr.worker(0)
			addr := w.mustListen(loopback).Addr().String() // never accepts
			tr.joined(1)
			answers := make(chan string, 12)
			for range cap(answers) {
				go func() {
					s, err := tryAsk("tcp", addr)
					answers <- fmt.Sprint(s, err)
				}()
			}
			until(t, "offers", func() bool { return tr.stats().Counts.Offered == cap(answers) })
			w.kill()
			go serveID(tr.worker(0).mustListen(loopback2(addr)), "next")
			for range cap(answers) {
				if s := <-answers; s != "next<nil>" {
					t.Errorf("answer %q", s)
				}
			}
			tr.settled(cap(answers))
		}},
		{"N117 N119 sockets over three workers, counted until they end", func(t *testing.T) {
			tr := newTree(t, false)
			var addr string
			accepted := make(chan net.Conn, 12)
			for i := range 3 {
				ln := tr.worker(i).mustListen(loopback)
				addr = ln.Addr().String()
				go func() {
					for {
						c, err := ln.Accept()
						if err != nil {
							return
						}
						accepted <- c
					}
				}()
			}
			tr.joined(3)
			open := func() (all []int) {
				for _, w := range tr.stats().Workers {
					all = append(all, w.Counts.Open())
				}
				return all
			}
			for range 12 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			until(t, "four at each", func() bool { return fmt.Sprint(open()) == "[4 4 4]" })
			for left := 11; left >= 0; left-- {
				(<-accepted).Close()
				until(t, fmt.Sprintf("%d in all", left), func() bool {
					n := 0
					for _, k := range open() {
						n += k
					}
					return n == left
				})
			}
			tr.settled(12)
		}},
		{"N116 N120 many at once, none lost", eachWay(func(t *testing.T, tr *tree, r netactor.Request) {
			var addr string
			for i := range 4 {
				ln := tr.worker(i).mustListen(r)
				addr = ln.Addr().String()
				go serveID(ln, "x")
			}
			var wg sync.WaitGroup
			for range 80 {
				wg.Go(func() {
					for range 5 {
						if s, err := tryAsk("tcp", addr); s != "x" || err != nil {
							t.Errorf("answer %q, %v", s, err)
						}
					}
				})
			}
			wg.Wait()
			if r.Policy == netactor.RoundRobin {
				tr.settled(400)
			}
		})},
	})
}

// joinedAt returns how many workers take part in the listener at addr.
func (tr *tree) joinedAt(addr string) (n int) {
	for _, info := range tr.table.Sockets() {
		for _, st := range tr.disp.Stats() {
			if st.Number != info.Number || info.Address != addr {
				continue
			}
			for _, w := range st.Workers {
				if w.Joined {
					n++
				}
			}
		}
	}
	return n
}

func connects2At(network, addr string) error {
	c, err := net.Dial(network, addr)
	if err == nil {
		c.Close()
	}
	return err
}

func needIPv6(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("needs IPv6:", err)
	}
	ln.Close()
}

func fdOf(t *testing.T, c any) (fd int) {
	t.Helper()
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(n uintptr) { fd = int(n) })
	return fd
}

// oneConn is a listener for connections from another source.
type oneConn struct {
	conns chan net.Conn
	addr  net.Addr
	once  sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	l.once.Do(func() { close(l.conns) })
	return nil
}

func (l *oneConn) Addr() net.Addr { return l.addr }

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
