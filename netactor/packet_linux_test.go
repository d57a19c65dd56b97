package netactor_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
)

var datagrams = netactor.Request{Network: "udp", Address: "127.0.0.1:0"}

func (w *testWorker) listenPacket(r netactor.Request) (net.PacketConn, error) {
	return w.ls.ListenPacket(testContext(w.tree.t), r)
}

func (w *testWorker) mustListenPacket(r netactor.Request) net.PacketConn {
	w.tree.t.Helper()
	pc, err := w.listenPacket(r)
	if err != nil {
		w.tree.t.Fatalf("%s: listen: %v", w.Name, err)
	}
	return pc
}

// echo answers each datagram of pc with the datagram and the name, until pc is closed. Then ended
// is closed.
func echo(pc net.PacketConn, name string) (ended <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = pc.WriteTo(fmt.Appendf(nil, "%s from %s", b[:n], name), from)
		}
	}()
	return done
}

// sender returns a connected socket to send from.
func sender(t testing.TB, to net.Addr) net.Conn {
	t.Helper()
	var from *net.UnixAddr
	if to.Network() == "unixgram" {
		from = &net.UnixAddr{Net: "unixgram", Name: filepath.Join(t.TempDir(), "from")}
		c, err := net.DialUnix("unixgram", from, to.(*net.UnixAddr))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(deadline))
		return c
	}
	return dial(t, to)
}

// say sends text and returns the answer.
func say(t testing.TB, c net.Conn, text string) string {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("no answer to %q: %v", text, err)
	}
	return string(b[:n])
}

// The workers share one socket under every policy and on every network; a datagram that one worker
// does not read, the other reads.
func TestPacketShared(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		for _, network := range []string{"udp", "udp4", "udp6", "unixgram"} {
			for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.LeastLoaded, netactor.Hash, netactor.Shared} {
				t.Run(network+" "+p.String(), func(t *testing.T) {
					tr := newTree(t, mem)
					r := netactor.Request{Network: network, Address: map[string]string{
						"udp": "127.0.0.1:0", "udp4": "127.0.0.1:0", "udp6": "[::1]:0", "unixgram": filepath.Join(t.TempDir(), "s"),
					}[network], Policy: p}
					a, b := tr.worker(0), tr.worker(1)
					x, y := a.mustListenPacket(r), b.mustListenPacket(r)
					if x.LocalAddr().String() != y.LocalAddr().String() {
						t.Fatalf("%v and %v", x.LocalAddr(), y.LocalAddr())
					}
					if s := tr.table.Sockets(); len(s) != 1 || s[0].Policy != netactor.Shared || s[0].Address != x.LocalAddr().String() {
						t.Errorf("sockets %+v", s)
					}
					c := sender(t, x.LocalAddr())
					ended := echo(x, "a")
					if s := say(t, c, "1"); s != "1 from a" { // b does not read
						t.Errorf("%q", s)
					}
					if err := x.Close(); err != nil {
						t.Error(err)
					}
					<-ended
					echo(y, "b")
					if s := say(t, c, "2"); s != "2 from b" {
						t.Errorf("%q", s)
					}
					if err := x.Close(); !errors.Is(err, net.ErrClosed) {
						t.Errorf("second close: %v", err)
					}
					_ = y.Close()
					tr.closedAtMaster()
					until(t, "the path to be removed", func() bool { _, err := os.Lstat(r.Address); return errors.Is(err, os.ErrNotExist) })
				})
			}
		}
	})
}

// A worker's death loses the datagrams that it had read. The datagrams in the socket's queue wait
// for the other workers, or for the replacement.
func TestPacketDeath(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := datagrams
			r.Policy = p
			w := tr.worker(0)
			addr := w.mustListenPacket(r).LocalAddr()
			w.kill()
			c := sender(t, addr)
			for i := range 5 {
				if _, err := fmt.Fprint(c, i); err != nil {
					t.Fatal(err)
				}
			}
			r.Address = addr.String()
			echo(tr.worker(0).mustListenPacket(r), "b")
			b := make([]byte, 100)
			for i := range 5 {
				if n, err := c.Read(b); err != nil || string(b[:n]) != fmt.Sprintf("%d from b", i) {
					t.Errorf("%q, %v", b[:n], err)
				}
			}
		})
	}
}
