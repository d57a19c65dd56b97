package netactor_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
)

// Under every policy, and under TLS, a worker gets the *net.TCPConn of a connection; options that are
// set on the connection are in effect, and the kernel moves the bytes of a file and of another
// connection. The close of the connection itself counts its end.
func TestTCPConn(t *testing.T) {
	want := bytes.Repeat([]byte("coppice\n"), 1<<16)
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.LeastLoaded, netactor.Hash, netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			w := tr.worker(0)
			r := loopback
			r.Policy = p
			ln := w.mustListen(r)
			held := hold(ln)
			if p.Dispatched() {
				tr.joined(1)
			}
			client := dial(t, ln.Addr())
			c := <-held
			options := c.(interface {
				SetKeepAliveConfig(net.KeepAliveConfig) error
				SetNoDelay(bool) error
				SetLinger(int) error
				SetReadBuffer(int) error
				SetWriteBuffer(int) error
			})
			if err := errors.Join(
				options.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 2 * time.Second, Count: 3}),
				options.SetNoDelay(false), options.SetLinger(7), options.SetReadBuffer(20_000), options.SetWriteBuffer(30_000),
			); err != nil {
				t.Fatal(err)
			}
			tcp, err := netactor.TCPConn(tls.Server(c, &tls.Config{}))
			if err != nil {
				t.Fatal(err)
			}
			// The deadlines of both are the same ones.
			if err := errors.Join(tcp.SetDeadline(time.Unix(1, 0)), c.SetDeadline(time.Time{})); err != nil {
				t.Fatal(err)
			}
			if again, err := netactor.TCPConn(c); again != tcp || err != nil {
				t.Errorf("another one without TLS: %v", err)
			}
			if a, b := tcp.RemoteAddr().String(), client.LocalAddr().String(); a != b || c.RemoteAddr().String() != b {
				t.Errorf("remote address %s, %v, want %s", a, c.RemoteAddr(), b)
			}
			for _, o := range []socketOption{
				{"idle", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
				{"interval", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 2},
				{"count", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
				{"no-delay", unix.IPPROTO_TCP, unix.TCP_NODELAY, 0},
				{"read buffer", unix.SOL_SOCKET, unix.SO_RCVBUF, 40_000},
				{"write buffer", unix.SOL_SOCKET, unix.SO_SNDBUF, 60_000},
			} {
				if v := optionOf(t, tcp, o.level, o.name); v != o.to {
					t.Errorf("%s: %d, want %d", o.field, v, o.to)
				}
			}

			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			// copied copies what feed brings and returns how many bytes were allocated for it.
			copied := func(to net.Conn, from io.Reader, feed func(), at net.Conn) uint64 {
				go feed()
				got := make(chan []byte, 1)
				buf := make([]byte, len(want))
				go func() {
					n, _ := io.ReadFull(at, buf)
					got <- buf[:n]
				}()
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				n, err := io.Copy(to, from)
				runtime.ReadMemStats(&after)
				if b := <-got; n != int64(len(want)) || err != nil || !bytes.Equal(b, want) {
					t.Errorf("%d bytes, %v; %d arrived", n, err, len(b))
				}
				return after.TotalAlloc - before.TotalAlloc
			}
			for what, try := range map[string]func() uint64{
				"a file": func() uint64 {
					if _, err := file.Seek(0, io.SeekStart); err != nil {
						t.Fatal(err)
					}
					return copied(c, file, func() {}, client)
				},
				"a connection": func() uint64 {
					source := dial(t, ln.Addr())
					from := <-held
					sink := dial(t, ln.Addr())
					to := <-held
					defer from.Close()
					defer to.Close()
					return copied(to, from, func() {
						_, _ = source.Write(want)
						_ = source.(*net.TCPConn).CloseWrite()
					}, sink)
				},
			} {
				used := uint64(math.MaxUint64)
				for range 3 { // others may allocate too in one moment
					used = min(used, try())
				}
				if used >= 32<<10 {
					t.Errorf("%s: %d bytes allocated: the kernel did not move it", what, used)
				}
			}
			if err := errors.Join(c.Close(), w.ls.Drain(testContext(t))); err != nil { // waits until none is open
				t.Error(err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("the client reads %v after the close", err)
			}
		})
	}
}

// What is no TCP connection has no *net.TCPConn.
func TestTCPConnOfAnother(t *testing.T) {
	tr := newTree(t, false)
	ln := tr.worker(0).mustListen(netactor.Request{Network: "unix", Address: filepath.Join(t.TempDir(), "s")})
	tr.joined(1)
	held := hold(ln)
	dial(t, ln.Addr())
	unixConn, pipe, far := <-held, net.Conn(nil), net.Conn(nil)
	pipe, far = net.Pipe()
	for _, c := range []net.Conn{unixConn, pipe, far, tls.Client(far, &tls.Config{})} {
		if tcp, err := netactor.TCPConn(c); tcp != nil || !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%T: %v, %v", c, tcp, err)
		}
		c.Close()
	}
}

// A worker's connection is a net.Conn by the rules of package nettest: as it is handed over, once its
// *net.TCPConn was asked for, and as the worker itself has accepted it.
func TestConnNettest(t *testing.T) {
	for _, row := range []struct {
		name  string
		p     netactor.Policy
		asked bool
	}{{"handed over", netactor.RoundRobin, false}, {"asked for", netactor.RoundRobin, true}, {"shared", netactor.Shared, false}} {
		t.Run(row.name, func(t *testing.T) {
			tr := newTree(t, false)
			r := loopback
			r.Policy = row.p
			ln := tr.worker(0).mustListen(r)
			if row.p.Dispatched() {
				tr.joined(1)
			}
			held := hold(ln)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				if c2, err = net.Dial("tcp", ln.Addr().String()); err != nil {
					return nil, nil, nil, err
				}
				c1 = <-held
				if row.asked {
					_, err = netactor.TCPConn(c1)
				}
				return c1, c2, func() { c1.Close(); c2.Close() }, err
			})
		})
	}
}
