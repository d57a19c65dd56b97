package netactor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
)

// eachPacketWay runs f with the one shared socket, which every policy of Node means for UDP, and
// with the policy that stands for its reusePort.
func eachPacketWay(f func(t *testing.T, tr *tree, r netactor.Request)) func(t *testing.T) {
	return func(t *testing.T) {
		for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.ReusePort} {
			t.Run(p.String(), func(t *testing.T) {
				r := datagrams
				r.Policy = p
				f(t, newTree(t, false), r)
			})
		}
	}
}

// onlyShared runs f with the shared socket alone.
func onlyShared(f func(t *testing.T, tr *tree, r netactor.Request)) func(t *testing.T) {
	return func(t *testing.T) { f(t, newTree(t, false), datagrams) }
}

// from returns a datagram from pc and its sender.
func receive(t *testing.T, pc net.PacketConn) (string, net.Addr) {
	t.Helper()
	b := make([]byte, 2048)
	_ = pc.SetReadDeadline(time.Now().Add(deadline))
	n, from, err := pc.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), from
}

// own returns a socket that no other process has.
func own(t *testing.T) *net.UDPConn {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc.(*net.UDPConn)
}

func TestNodePacket(t *testing.T) {
	runScenarios(t, []scenario{
		{"N7 closed and bound to port 0 again", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			w := tr.worker(0)
			for range 3 {
				a, b := w.mustListenPacket(r), w.mustListenPacket(r)
				if a.LocalAddr().String() == b.LocalAddr().String() {
					t.Fatalf("both on %s", a.LocalAddr())
				}
				a.Close()
				b.Close()
			}
			tr.closedAtMaster()
		})},
		{"N11 N16 N138 workers share a port", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			const clients, each = 8, 50
			var addr net.Addr
			for i := range 3 {
				pc := tr.worker(i).mustListenPacket(r)
				if addr == nil {
					addr = pc.LocalAddr()
				} else if addr.String() != pc.LocalAddr().String() {
					t.Fatalf("port 0 gave %s, then %s", addr, pc.LocalAddr())
				}
				echo(pc, fmt.Sprint(i))
			}
			if s := tr.table.Sockets(); len(s) != 1 || len(s[0].Workers) != 3 || s[0].Policy == netactor.ReusePort && s[0].Group != 3 {
				t.Errorf("sockets %+v", s)
			}
			for range clients {
				c, who := sender(t, addr), map[string]bool{}
				for i := range each {
					var n int
					var name string
					if s := say(t, c, fmt.Sprint(i)); scan(s, &n, &name) != nil || n != i {
						t.Fatalf("answer %q to %d", s, i)
					}
					who[name] = true
				}
				if r.Policy == netactor.ReusePort && len(who) != 1 {
					t.Errorf("one client's datagrams went to %v", who)
				}
			}
		})},
		{"N12 workers send by the socket", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			to := own(t)
			for i := range 3 {
				w := tr.worker(i)
				pc := w.mustListenPacket(r)
				for j := range 10 {
					if _, err := pc.WriteTo(fmt.Appendf(nil, "%d %d", i, j), to.LocalAddr()); err != nil {
						t.Fatal(err)
					}
					text, from := receive(t, to)
					if text != fmt.Sprintf("%d %d", i, j) || from.String() != pc.LocalAddr().String() {
						t.Fatalf("%q from %v, the socket is %v", text, from, pc.LocalAddr())
					}
				}
			}
		})},
		{"N13 a descriptor of the master's", onlyShared(func(t *testing.T, tr *tree, _ netactor.Request) {
			master := own(t)
			r := netactor.Request{FD: fdOf(t, master)}
			for i := range 2 {
				pc := tr.worker(i).mustListenPacket(r)
				if pc.LocalAddr().String() != master.LocalAddr().String() {
					t.Errorf("%v", pc.LocalAddr())
				}
				ended := echo(pc, "worker")
				if s := say(t, sender(t, master.LocalAddr()), "x"); s != "x from worker" {
					t.Errorf("%q", s)
				}
				pc.Close() // the descriptor is the master's: it stays open
				<-ended
			}
			tr.closedAtMaster()
			echo(master, "master")
			if s := say(t, sender(t, master.LocalAddr()), "x"); s != "x from master" {
				t.Errorf("%q", s)
			}
			null, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			defer null.Close()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			unbound, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(unbound)
			for what, fd := range map[string]int{"number": 1 << 19, "file": int(null.Fd()), "listener": fdOf(t, ln), "unbound socket": unbound} {
				if _, err := tr.worker(0).listenPacket(netactor.Request{FD: fd}); !errors.Is(err, syscall.EINVAL) {
					t.Errorf("%s: %v, want EINVAL", what, err)
				}
			}
		})},
		{"N14 udp6 and udp4 on one port", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			a, b := tr.worker(0), tr.worker(1)
			six := a.mustListenPacket(at(r, "udp6", "[::]:0"))
			port := six.LocalAddr().(*net.UDPAddr).Port
			echo(six, "six")
			echo(b.mustListenPacket(at(r, "udp4", fmt.Sprint("0.0.0.0:", port))), "four")
			if s := say(t, sender(t, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}), "x"); s != "x from four" {
				t.Errorf("%q", s)
			}
			if s := say(t, sender(t, &net.UDPAddr{IP: net.IPv6loopback, Port: port}), "x"); s != "x from six" {
				t.Errorf("%q", s)
			}
			// Without a number behind it udp is both.
			if _, err := b.listenPacket(at(r, "udp", fmt.Sprint(":", port))); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("udp beside both: %v", err)
			}
		})},
		{"N15 two sockets on one port with SO_REUSEADDR", onlyShared(func(t *testing.T, tr *tree, r netactor.Request) {
			// As in package net it is set for a group's address, and for no other.
			w := tr.worker(0)
			a := w.mustListenPacket(at(r, "udp4", "239.255.77.1:0"))
			port := a.LocalAddr().(*net.UDPAddr).Port
			if !a.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
				t.Errorf("bound to %v", a.LocalAddr())
			}
			w.mustListenPacket(at(r, "udp4", fmt.Sprint("239.255.77.2:", port)))
			lo, err := net.InterfaceByName("lo")
			if err != nil {
				t.Fatal(err)
			}
			own, err := net.ListenMulticastUDP("udp4", lo, &net.UDPAddr{IP: net.IPv4(239, 255, 77, 1), Port: port})
			if err != nil {
				t.Fatal(err)
			}
			defer own.Close()
			if _, err := w.listenPacket(at(r, "udp4", fmt.Sprint("0.0.0.0:", port))); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("without it: %v", err)
			}
		})},
		{"N23 a worker that never listened leaves", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			idle, busy := tr.worker(0), tr.worker(1)
			pc := busy.mustListenPacket(r)
			echo(pc, "busy")
			wait(t, idle.drain())
			idle.gone(true)
			if s := say(t, sender(t, pc.LocalAddr()), "x"); s != "x from busy" {
				t.Errorf("%q", s)
			}
		})},
		{"N89 N91 given up before the reply", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			w := tr.worker(0)
			ctx, cancel := context.WithCancel(testContext(t))
			cancel()
			for range 20 {
				if pc, err := w.ls.ListenPacket(ctx, r); err == nil {
					pc.Close() // it came sooner
				} else if !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			tr.closedAtMaster()
			if n := inspect.Ordinals(w.ls); n != 0 {
				t.Errorf("%d ordinals are taken", n)
			}
		})},
		{"N90 the port is in use, then free", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			other := own(t)
			r.Address = other.LocalAddr().String()
			w := tr.worker(0)
			for range 3 {
				_, err := w.listenPacket(r)
				op, ok := errors.AsType[*net.OpError](err)
				sys, _ := errors.AsType[*os.SyscallError](err)
				if !ok || op.Op != "listen" || op.Addr.String() != r.Address || sys.Syscall != "bind" || !errors.Is(err, syscall.EADDRINUSE) {
					t.Fatalf("%#v", err)
				}
			}
			other.Close()
			echo(w.mustListenPacket(r), "now")
			if s := say(t, sender(t, other.LocalAddr()), "x"); s != "x from now" {
				t.Errorf("%q", s)
			}
		})},
		{"N92 closed as soon as it is there", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			a, b := tr.worker(0), tr.worker(1)
			pc := a.mustListenPacket(r)
			addr := pc.LocalAddr()
			echo(b.mustListenPacket(r), "b")
			reading := make(chan error)
			go func() {
				_, _, err := pc.ReadFrom(make([]byte, 1))
				reading <- err
			}()
			if err := pc.Close(); err != nil {
				t.Error(err)
			}
			if err := <-reading; !errors.Is(err, net.ErrClosed) {
				t.Errorf("read: %v", err)
			}
			until(t, "one socket to be left", func() bool { return bound(t, addr) == 1 })
			if s := say(t, sender(t, addr), "x"); s != "x from b" {
				t.Errorf("%q", s)
			}
		})},
		{"N93 bound by sending is one's own", onlyShared(func(t *testing.T, tr *tree, _ netactor.Request) {
			to := own(t)
			seen := map[string]bool{}
			for range 3 { // as in each worker: the master is not asked
				c := sender(t, to.LocalAddr())
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				_, from := receive(t, to)
				seen[from.String()] = true
			}
			if len(seen) != 3 || len(tr.table.Sockets()) != 0 {
				t.Errorf("sent from %v, the master holds %v", seen, tr.table.Sockets())
			}
		})},
		{"N107 one's own clashes, shared does not", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			a, b := tr.worker(0), tr.worker(1)
			pc := a.mustListenPacket(r)
			if own, err := net.ListenPacket("udp", pc.LocalAddr().String()); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("own: %v, %v", own, err)
			}
			b.mustListenPacket(at(r, "udp", pc.LocalAddr().String()))
			if _, err := b.listenPacket(at(r, "udp", pc.LocalAddr().String())); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("twice: %v", err)
			}
		})},
		{"N118 a socket is passed on and both receive", onlyShared(func(t *testing.T, tr *tree, _ netactor.Request) {
			got := make(chan net.PacketConn, 1)
			pair := tr.pair(fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { f.Refuse(0) }},
				fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
					pc, err := f.Handles[0].PacketConn()
					if err != nil {
						t.Error(err)
					}
					got <- pc
				}})
			defer pair[0].Close()
			defer pair[1].Close()
			mine := own(t)
			f, err := mine.File() // a handle moves: a duplicate goes
			if err != nil {
				t.Fatal(err)
			}
			if err := pair[0].Send(testContext(t), &fdipc.Frame{Kind: 0xf0, Handles: []*fdipc.Handle{handleOf(t, f)}}); err != nil {
				t.Fatal(err)
			}
			its := <-got
			defer its.Close()
			c := sender(t, mine.LocalAddr())
			for i, pc := range []net.PacketConn{mine, its, mine} {
				fmt.Fprint(c, i)
				if s, from := receive(t, pc); s != fmt.Sprint(i) || from.String() != c.LocalAddr().String() {
					t.Errorf("%q from %v", s, from)
				}
			}
		})},
		{"N134 the number of port 0", eachPacketWay(func(t *testing.T, tr *tree, r netactor.Request) {
			a, b := tr.worker(0), tr.worker(1)
			pc := a.mustListenPacket(r)
			b.mustListenPacket(at(r, "udp", pc.LocalAddr().String()))
			if s := tr.table.Sockets(); len(s) != 1 || len(s[0].Workers) != 2 {
				t.Errorf("sockets %+v", s)
			}
		})},
	})
}

// bound returns how many IPv4 sockets the kernel has on the port of an address.
func bound(t testing.TB, addr net.Addr) (n int) {
	t.Helper()
	// Each read(2) finds its place by counting, and misses a socket if one before it is closed just
	// then. So the reads are large, and of three looks the highest counts.
	for range 3 {
		file, err := os.Open("/proc/net/udp")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(bufio.NewReaderSize(file, 1<<16))
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		n = max(n, strings.Count(string(b), fmt.Sprintf(":%04X 00000000:0000 ", addr.(*net.UDPAddr).Port)))
	}
	return n
}

// scan reads an answer of echo.
func scan(s string, n *int, name *string) error {
	_, err := fmt.Sscanf(s, "%d from %s", n, name)
	return err
}
