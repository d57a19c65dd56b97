package netactor_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/listen"
)

// withFD runs f on the descriptor of v.
func withFD(t testing.TB, v any, f func(fd int) error) {
	t.Helper()
	rc, err := v.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := rc.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
}

// TestPacketErrors compares a worker's errors with those of net.ListenPacket and net.Listen.
func TestPacketErrors(t *testing.T) {
	tr := newTree(t, false)
	w := tr.worker(0)
	taken := own(t).LocalAddr().String()
	dir := t.TempDir()
	live, err := net.ListenPacket("unixgram", filepath.Join(dir, "live"))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	for _, tt := range []struct{ network, address string }{
		{"udp", taken},
		{"udp4", taken},
		{"udp", "192.0.2.1:0"},
		{"udp6", "[2001:db8::1]:0"},
		{"udp", "noport"},
		{"udp", "127.0.0.1:no such service"},
		{"udp", "127.0.0.1:99999"},
		{"udp4", "[::1]:0"},
		{"udp6", "127.0.0.1:0"},
		{"unixgram", filepath.Join(dir, "live")},
		{"unixgram", "/nonexistent/s"},
		{"bogus", "127.0.0.1:0"},
	} {
		if pc, want := net.ListenPacket(tt.network, tt.address); want == nil {
			pc.Close()
			t.Fatalf("%v: net.ListenPacket has no error", tt)
		} else if _, got := w.listenPacket(netactor.Request{Network: tt.network, Address: tt.address}); got == nil || got.Error() != want.Error() {
			t.Errorf("ListenPacket %v:\n%v, net says\n%v", tt, got, want)
		}
	}
	for _, tt := range []struct{ network, address string }{{"udp", "noport"}, {"unixpacket", "/nonexistent/s"}} {
		if ln, want := net.Listen(tt.network, tt.address); want == nil {
			ln.Close()
			t.Fatalf("%v: net.Listen has no error", tt)
		} else if _, got := w.listen(netactor.Request{Network: tt.network, Address: tt.address}); got == nil || got.Error() != want.Error() {
			t.Errorf("Listen %v:\n%v, net says\n%v", tt, got, want)
		}
	}
	if _, err := w.listenPacket(netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}); err == nil || !strings.HasSuffix(err.Error(), "tcp is for Listen") {
		t.Errorf("ListenPacket of tcp: %v", err)
	}
	if _, err := w.listen(netactor.Request{Network: "udp", Address: "127.0.0.1:0"}); err == nil || !strings.HasSuffix(err.Error(), "udp is for ListenPacket") {
		t.Errorf("Listen of udp: %v", err)
	}
	for _, r := range []netactor.Request{
		{Network: "unix", Address: filepath.Join(dir, "x")}, // package net makes a listener of it that cannot accept
		{Name: "nobody"}, {Network: "ip:1", Address: "127.0.0.1"},
	} {
		if _, err := w.listenPacket(r); err == nil {
			t.Errorf("no error for %+v", r)
		}
	}
	if len(tr.table.Sockets()) != 0 || inspect.Ordinals(w.ls) != 0 {
		t.Errorf("the master holds %v, ordinals %v", tr.table.Sockets(), inspect.Ordinals(w.ls))
	}
}

// TestPacketPrivilegedPort: EACCES, as with package net.
func TestPacketPrivilegedPort(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("needs a user without CAP_NET_BIND_SERVICE")
	}
	_, err := newTree(t, false).worker(0).listenPacket(netactor.Request{Network: "udp", Address: "127.0.0.1:42"})
	if !errors.Is(err, syscall.EACCES) {
		t.Errorf("%v, want EACCES", err)
	}
}

// A name belongs to a socket of one kind.
func TestPacketByName(t *testing.T) {
	tr := newTree(t, false)
	a, b := tr.worker(0), tr.worker(1)
	r := datagrams
	r.Name = "dns"
	pc := a.mustListenPacket(r)
	same := b.mustListenPacket(netactor.Request{Name: "dns"})
	if pc.LocalAddr().String() != same.LocalAddr().String() {
		t.Errorf("%v and %v", pc.LocalAddr(), same.LocalAddr())
	}
	if _, err := b.listen(netactor.Request{Name: "dns"}); !errors.Is(err, syscall.EPROTOTYPE) {
		t.Errorf("a listener of it: %v", err)
	}
	r = loopback
	r.Name = "http"
	a.mustListen(r)
	if _, err := b.listenPacket(netactor.Request{Name: "http"}); !errors.Is(err, syscall.EPROTOTYPE) {
		t.Errorf("a packet socket of a listener: %v", err)
	}
	r.Name = "dns"
	if _, err := b.listen(r); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the name for another address: %v", err)
	}
	for _, s := range tr.table.Sockets() {
		if want := map[string]int{"dns": 2, "http": 1}[s.Name]; len(s.Workers) != want {
			t.Errorf("%s: workers %v", s.Name, s.Workers)
		}
		if ok := tr.table.Pause(s.Number); ok != (s.Name == "http") {
			t.Errorf("%s: pause %v", s.Name, ok)
		}
	}
}

// The n-th bind to port 0 of each worker is the same n-th port.
func TestPacketOrdinal(t *testing.T) {
	tr := newTree(t, false)
	a, b := tr.worker(0), tr.worker(1)
	var ports []string
	for range 3 {
		ports = append(ports, a.mustListenPacket(datagrams).LocalAddr().String())
	}
	for i := range 3 {
		if s := b.mustListenPacket(datagrams).LocalAddr().String(); s != ports[i] {
			t.Errorf("the %d. of the second worker is %s, want one of %v", i+1, s, ports)
		}
	}
	if s := tr.table.Sockets(); len(s) != 3 {
		t.Errorf("%d sockets", len(s))
	}
}

// A path: its mode bits; relative, long, left by a crash, in use, abstract. At the end the path is
// removed, but only if it still names the same socket.
func TestPacketPath(t *testing.T) {
	tr := newTree(t, false)
	dir := t.TempDir()
	t.Chdir(dir)
	long := filepath.Join(dir, strings.Repeat("d", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, "stale")}); err != nil {
		t.Fatal(err)
	}
	unix.Close(fd) // as a crash: the path stays
	for _, path := range []string{"relative", filepath.Join(long, "s"), "stale", "@coppice-test-" + filepath.Base(dir)} {
		r := netactor.Request{Network: "unixgram", Address: path, Mode: 0o640}
		abstract := path[0] == '@'
		full := path
		if !abstract && !filepath.IsAbs(path) {
			full = filepath.Join(dir, path)
		}
		a, b := tr.worker(0), tr.worker(1)
		x, y := a.mustListenPacket(r), b.mustListenPacket(r)
		if x.LocalAddr().String() != full || y.LocalAddr().String() != full {
			t.Errorf("%s: %v and %v", path, x.LocalAddr(), y.LocalAddr())
		}
		if fi, err := os.Stat(path); !abstract && (err != nil || fi.Mode().Perm() != 0o640) {
			t.Errorf("%s: %v, %v", path, fi.Mode(), err)
		}
		if len(full) < 107 {
			echo(x, "x")
			if s := say(t, sender(t, x.LocalAddr()), "1"); s != "1 from x" {
				t.Errorf("%s: %q", path, s)
			}
		}
		a.kill()
		if _, err := os.Lstat(path); err != nil && !abstract {
			t.Errorf("%s is gone with one worker: %v", path, err)
		}
		y.Close()
		b.gone(true)
		tr.table.StopOwner("web")
		until(t, path+" to be removed", func() bool { _, err := os.Lstat(path); return errors.Is(err, os.ErrNotExist) })
	}
}

// TestPacketConn: the returned connection has the methods by which quic-go and golang.org/x/net
// recognize a UDP socket, and they work; also without a master.
func TestPacketConn(t *testing.T) {
	for _, ls := range []*listen.Listeners{newTree(t, false).worker(0).ls, listen.New(listen.Config{})} {
		pc, err := ls.ListenPacket(testContext(t), datagrams)
		if err != nil {
			t.Fatal(err)
		}
		u, ok := pc.(interface {
			net.PacketConn
			net.Conn
			syscall.Conn
			SetReadBuffer(int) error
			SetWriteBuffer(int) error
			ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
			WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
			ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
			WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
		})
		if !ok {
			t.Fatalf("%T lacks methods of *net.UDPConn", pc)
		}
		withFD(t, u, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1) })
		if err := u.SetReadBuffer(1 << 16); err != nil {
			t.Error(err)
		}
		c := sender(t, pc.LocalAddr())
		fmt.Fprint(c, "hello")
		b, oob := make([]byte, 10), make([]byte, 100)
		_ = u.SetReadDeadline(time.Now().Add(deadline))
		n, oobn, _, from, err := u.ReadMsgUDP(b, oob)
		if err != nil || string(b[:n]) != "hello" || oobn == 0 {
			t.Errorf("%q, %d bytes of control data, %v", b[:n], oobn, err)
		}
		if _, _, err := u.WriteMsgUDP([]byte("bye"), nil, from); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(b); err != nil || string(b[:n]) != "bye" {
			t.Errorf("%q, %v", b[:n], err)
		}
		_ = u.SetReadDeadline(time.Unix(1, 0))
		if _, _, err := u.ReadFrom(b); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after the deadline: %v", err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		if _, _, err := u.ReadFrom(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestPacketNetOptions: a socket of the master has the options that net.ListenPacket sets.
func TestPacketNetOptions(t *testing.T) {
	w := newTree(t, false).worker(0)
	options := map[string][2]int{
		"SO_BROADCAST": {unix.SOL_SOCKET, unix.SO_BROADCAST}, "SO_REUSEADDR": {unix.SOL_SOCKET, unix.SO_REUSEADDR},
		"SO_REUSEPORT": {unix.SOL_SOCKET, unix.SO_REUSEPORT}, "SO_RCVBUF": {unix.SOL_SOCKET, unix.SO_RCVBUF},
		"IPV6_V6ONLY": {unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}, "IP_MULTICAST_LOOP": {unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP},
	}
	read := func(v any) string {
		var out strings.Builder
		withFD(t, v, func(fd int) error {
			for _, name := range []string{"SO_BROADCAST", "SO_REUSEADDR", "SO_REUSEPORT", "SO_RCVBUF", "IPV6_V6ONLY", "IP_MULTICAST_LOOP"} {
				n, err := unix.GetsockoptInt(fd, options[name][0], options[name][1])
				fmt.Fprintf(&out, "%s %d %v; ", name, n, err)
			}
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			fmt.Fprint(&out, "close-on-exec ", flags, err)
			return nil
		})
		return out.String()
	}
	for _, tt := range []struct{ network, address string }{
		{"udp", ":0"}, {"udp4", ":0"}, {"udp6", ":0"}, {"udp", "127.0.0.1:0"}, {"udp", "0.0.0.0:0"}, {"udp", ""}, {"udp4", "239.1.2.3:0"}, {"udp6", "[ff02::1]:0"},
	} {
		theirs, err := net.ListenPacket(tt.network, tt.address)
		if err != nil {
			t.Logf("%v: %v", tt, err)
			continue
		}
		ours := w.mustListenPacket(netactor.Request{Network: tt.network, Address: tt.address})
		host := func(a net.Addr) string { return a.(*net.UDPAddr).IP.String() }
		if a, b := read(theirs), read(ours); a != b || host(theirs.LocalAddr()) != host(ours.LocalAddr()) {
			t.Errorf("%v: %v\n%s\nnet has %v\n%s", tt, ours.LocalAddr(), b, theirs.LocalAddr(), a)
		}
		theirs.Close()
		ours.Close()
	}
}

// TestPacketOptionsShared: the options of the socket are shared with it, O_NONBLOCK too, as UDPConn
// documents; with ReusePort each slot has its own.
func TestPacketOptionsShared(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := datagrams
			r.Policy = p
			x, y := tr.worker(0).mustListenPacket(r), tr.worker(1).mustListenPacket(r)
			get := func(pc net.PacketConn) (size int, nonblock bool) {
				withFD(t, pc, func(fd int) (err error) {
					size, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
					if err == nil {
						flags, e := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
						nonblock, err = flags&unix.O_NONBLOCK != 0, e
					}
					return err
				})
				return size, nonblock
			}
			if err := x.(*listen.UDPConn).SetReadBuffer(16 << 10); err != nil {
				t.Fatal(err)
			}
			a, _ := get(x)
			if b, _ := get(y); (a == b) != (p == netactor.Shared) {
				t.Errorf("read buffers of %d and %d", a, b)
			}
			f, err := x.(*listen.UDPConn).File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, ok := get(y); !ok {
				t.Error("File has cleared O_NONBLOCK")
			}
			f.Fd() // the trap
			if _, ok := get(y); ok != (p == netactor.ReusePort) {
				t.Errorf("after Fd O_NONBLOCK is %v at the other worker", ok)
			}
			// The next caller sets it again.
			r.Address = x.LocalAddr().String()
			tr.worker(0).mustListenPacket(r)
			for _, pc := range []net.PacketConn{x, y} {
				if _, ok := get(pc); !ok {
					t.Error("O_NONBLOCK is not set again")
				}
			}
		})
	}
}

// group is a multicast address, and the options to use it on the loopback interface alone.
type group struct {
	t  *testing.T
	lo int
	ip [4]byte
}

func newGroup(t *testing.T) group {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	return group{t, lo.Index, [4]byte{239, 255, 0, 99}}
}

// join makes pc's socket a member.
func (g group) join(pc net.PacketConn) (err error) {
	g.t.Helper()
	withFD(g.t, pc, func(fd int) error {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: g.ip, Ifindex: int32(g.lo)})
		return nil
	})
	return err
}

// strict makes a socket receive only from groups that it joined itself, not from groups that any
// socket of the machine joined: IP_MULTICAST_ALL in ip(7).
func (g group) strict(pc net.PacketConn) {
	g.t.Helper()
	withFD(g.t, pc, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0) })
}

func (g group) send(port int, text string) {
	g.t.Helper()
	from := own(g.t)
	withFD(g.t, from, func(fd int) error {
		return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(g.lo)})
	})
	if _, err := from.WriteTo([]byte(text), &net.UDPAddr{IP: net.IP(g.ip[:]), Port: port}); err != nil {
		g.t.Fatal(err)
	}
	from.Close()
}

// TestPacketGroup: membership belongs to the socket. With the shared socket one worker's join is
// enough, the next join is EADDRINUSE, the membership outlives the worker, and each datagram goes
// to one worker. With ReusePort each worker has to join, and each gets a copy; the slot's socket
// keeps the membership.
func TestPacketGroup(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			g := newGroup(t)
			r := netactor.Request{Network: "udp4", Address: "0.0.0.0:0", Policy: p}
			a, b := tr.worker(0), tr.worker(1)
			x, y := a.mustListenPacket(r), b.mustListenPacket(r)
			port := x.LocalAddr().(*net.UDPAddr).Port
			r.Address = fmt.Sprint("0.0.0.0:", port)
			g.strict(x)
			g.strict(y)
			if err := g.join(x); err != nil {
				t.Skipf("no multicast on the loopback interface: %v", err)
			}
			if err := g.join(y); errors.Is(err, syscall.EADDRINUSE) != (p == netactor.Shared) || err != nil && p == netactor.ReusePort {
				t.Errorf("the second join: %v", err)
			}
			g.send(port, "1")
			if s, _ := receive(t, y); s != "1" {
				t.Errorf("%q", s)
			}
			if p == netactor.ReusePort {
				if s, _ := receive(t, x); s != "1" {
					t.Errorf("%q", s)
				}
			} else if n := queued(t, x); n != 0 {
				t.Errorf("%d more bytes after one datagram was read", n)
			}
			a.kill()
			g.send(port, "2")
			x = tr.worker(0).mustListenPacket(r) // it has not joined, its socket has
			if s, _ := receive(t, x); s != "2" {
				t.Errorf("%q", s)
			}
			if err := g.join(x); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("the replacement joins: %v", err)
			}
		})
	}
}

// TestPacketGroupRepaired: the socket of a group's address coexists with other sockets of its port,
// and so does the socket that replaces it after a shutdown.
func TestPacketGroupRepaired(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			w := tr.worker(0)
			r := netactor.Request{Network: "udp4", Address: "224.0.0.251:0", Policy: p}
			pc := w.mustListenPacket(r)
			port := pc.LocalAddr().(*net.UDPAddr).Port
			r.Address = fmt.Sprint("224.0.0.251:", port)
			other, err := net.ListenPacket("udp4", r.Address) // another program
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			withFD(t, pc, func(fd int) error { _ = unix.Shutdown(fd, unix.SHUT_RDWR); return nil })
			until(t, "the reader to be told", func() bool {
				_, _, err := pc.ReadFrom(make([]byte, 1))
				return errors.Is(err, net.ErrClosed)
			})
			if pc, err = w.listenPacket(r); err != nil {
				t.Fatal(err)
			}
			if got := pc.LocalAddr().(*net.UDPAddr).Port; got != port {
				t.Errorf("port %d, before %d", got, port)
			}
		})
	}
}

// queued returns the size of the first waiting datagram, 0 if there is none.
func queued(t *testing.T, pc net.PacketConn) (n int) {
	t.Helper()
	withFD(t, pc, func(fd int) (err error) {
		n, err = unix.IoctlGetInt(fd, unix.SIOCINQ)
		return err
	})
	return n
}

// TestPacketConnected: a worker connects its own socket, on the same port if that is ReusePort's.
// It gets all datagrams of its client, and the other sockets get all others; after the worker's end
// the client's datagrams go to the other sockets again. The port of a shared socket takes no second
// socket.
func TestPacketConnected(t *testing.T) {
	open := func(local net.Addr) (*net.UDPConn, error) {
		lc := net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) (err error) {
			cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return errors.Join(cerr, err)
		}}
		pc, err := lc.ListenPacket(context.Background(), "udp4", local.String())
		if err != nil {
			return nil, err
		}
		return pc.(*net.UDPConn), nil
	}
	t.Run("shared", func(t *testing.T) {
		pc := newTree(t, false).worker(0).mustListenPacket(datagrams)
		if c, err := open(pc.LocalAddr()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v, %v", c, err)
		}
	})
	t.Run("reuseport", func(t *testing.T) {
		tr := newTree(t, false)
		r := datagrams
		r.Policy = netactor.ReusePort
		pc := tr.worker(0).mustListenPacket(r)
		echo(pc, "slot")
		client := sender(t, pc.LocalAddr())
		if s := say(t, client, "1"); s != "1 from slot" {
			t.Fatalf("%q", s)
		}
		c, err := open(pc.LocalAddr())
		if err != nil {
			t.Fatal(err)
		}
		withFD(t, c, func(fd int) error {
			return unix.Connect(fd, &unix.SockaddrInet4{Port: client.LocalAddr().(*net.UDPAddr).Port, Addr: [4]byte{127, 0, 0, 1}})
		})
		ended := echo(c, "own")
		for i := range 20 {
			if s := say(t, client, fmt.Sprint(i)); s != fmt.Sprint(i, " from own") {
				t.Fatalf("%q", s)
			}
			if s := say(t, sender(t, pc.LocalAddr()), fmt.Sprint(i)); s != fmt.Sprint(i, " from slot") {
				t.Fatalf("another client: %q", s)
			}
		}
		c.Close()
		<-ended
		if s := say(t, client, "2"); s != "2 from slot" {
			t.Errorf("%q", s)
		}
	})
}

// TestPacketShutDown: a worker shuts the socket down for all that have it. The master notices
// without a report: the workers get net.ErrClosed, and not empty reads without end, and a worker
// that asks again gets another socket at the same address.
func TestPacketShutDown(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
		for _, how := range []int{unix.SHUT_RD, unix.SHUT_RDWR} {
			t.Run(fmt.Sprint(p, " ", how), func(t *testing.T) {
				tr := newTree(t, false)
				r := datagrams
				r.Policy = p
				a, b := tr.worker(0), tr.worker(1)
				x, y := a.mustListenPacket(r), b.mustListenPacket(r)
				r.Address = x.LocalAddr().String()
				other := echo(y, "b")
				withFD(t, x, func(fd int) error {
					if err := unix.Shutdown(fd, how); err != unix.ENOTCONN { // shutdown returns ENOTCONN, and works
						return fmt.Errorf("shutdown: %w", err)
					}
					return nil
				})
				until(t, "the reader to be told", func() bool {
					_, _, err := x.ReadFrom(make([]byte, 1))
					return errors.Is(err, net.ErrClosed)
				})
				if p == netactor.Shared {
					<-other
				}
				var fresh net.PacketConn
				until(t, "another socket", func() bool { // EADDRINUSE until the other one is closed everywhere
					var err error
					fresh, err = a.listenPacket(r)
					return err == nil
				})
				if fresh.LocalAddr().String() != r.Address {
					t.Errorf("at %v, before at %s", fresh.LocalAddr(), r.Address)
				}
				until(t, "the old sockets to be closed", func() bool {
					return bound(t, x.LocalAddr()) == map[netactor.Policy]int{netactor.Shared: 1, netactor.ReusePort: 2}[p]
				})
				echo(fresh, "a")
				for range 10 {
					if s := say(t, sender(t, fresh.LocalAddr()), "1"); s != "1 from a" && (p == netactor.Shared || s != "1 from b") {
						t.Errorf("%q", s)
					}
				}
				if n := len(tr.table.Sockets()); n != 1 {
					t.Errorf("%d sockets", n)
				}
			})
		}
	}
}

// TestPacketReusePort: a client's datagrams go to one slot, and still go there after the worker's
// death; a slot that is scaled away leaves its clients to the other slots.
func TestPacketReusePort(t *testing.T) {
	tr := newTree(t, false)
	r := datagrams
	r.Policy = netactor.ReusePort
	a, b := tr.worker(0), tr.worker(1)
	x := a.mustListenPacket(r)
	r.Address = x.LocalAddr().String()
	echo(x, "0")
	echo(b.mustListenPacket(r), "1")
	// One client for each.
	clients := map[string]net.Conn{}
	until(t, "a client for each socket", func() bool {
		c := sender(t, x.LocalAddr())
		s := say(t, c, "x")
		clients[s[len("x from "):]] = c
		return len(clients) == 2
	})
	b.kill()
	fmt.Fprint(clients["1"], "kept") // in the queue of a socket that no worker reads
	if s := say(t, clients["0"], "y"); s != "y from 0" {
		t.Errorf("%q", s)
	}
	b = tr.worker(1)
	echo(b.mustListenPacket(r), "1")
	buf := make([]byte, 100)
	if n, err := clients["1"].Read(buf); err != nil || string(buf[:n]) != "kept from 1" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	b.gone(true) // scaled away
	until(t, "one socket to be left", func() bool { return bound(t, x.LocalAddr()) == 1 })
	if s := say(t, clients["1"], "z"); s != "z from 0" {
		t.Errorf("%q", s)
	}
}

// TestUnixPacket: unixpacket is a listener like others: dispatched, or shared. Message boundaries
// are kept, another worker serves what a dead worker had not claimed, and the path is removed at
// the end.
func TestUnixPacket(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.Shared} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := netactor.Request{Network: "unixpacket", Address: filepath.Join(t.TempDir(), "s"), Policy: p, Mode: 0o600}
			a, b := tr.worker(0), tr.worker(1)
			x, y := a.mustListen(r), b.mustListen(r)
			if x.Addr().Network() != "unixpacket" || x.Addr().String() != r.Address {
				t.Errorf("%v %v", x.Addr().Network(), x.Addr())
			}
			if _, err := a.listen(r); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("twice: %v", err)
			}
			if _, err := a.listen(at(r, "unix", r.Address)); !errors.Is(err, syscall.EADDRINUSE) {
				t.Errorf("as a stream: %v", err)
			}
			if p == netactor.RoundRobin {
				tr.joined(2)
			}
			const n = 10
			var clients []net.Conn
			for range n {
				clients = append(clients, dial(t, x.Addr()))
			}
			if p == netactor.RoundRobin {
				until(t, "offers to both", func() bool { return tr.stats().Counts.Accepted == n })
			}
			a.kill() // it has accepted none
			go func() {
				for {
					c, err := y.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						for buf := make([]byte, 100); ; {
							k, err := c.Read(buf)
							if err != nil || k == 0 {
								return
							}
							_, _ = fmt.Fprintf(c, "%s from b", buf[:k])
						}
					}()
				}
			}()
			for _, c := range clients {
				if _, err := c.Write([]byte("1")); err != nil {
					t.Fatal(err)
				}
				if s := say(t, c, "22"); s != "1 from b" {
					t.Errorf("%q", s)
				}
				buf := make([]byte, 100)
				if k, err := c.Read(buf); err != nil || string(buf[:k]) != "22 from b" {
					t.Errorf("%q, %v", buf[:k], err)
				}
				c.Close()
			}
			y.Close()
			tr.table.StopOwner("web")
			until(t, "the path to be removed", func() bool { _, err := os.Lstat(r.Address); return errors.Is(err, os.ErrNotExist) })
		})
	}
}
