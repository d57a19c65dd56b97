package netactor_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// optionOf reads an option of a connection.
func optionOf(t *testing.T, c net.Conn, level, name int) int {
	t.Helper()
	rc, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	v := 0
	if cerr := rc.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, name) }); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	return v
}

// everySocket returns the master's listening sockets.
func (tr *tree) everySocket() (fds []int) {
	tr.quiet()
	for _, s := range tr.look().Sockets {
		fds = append(fds, s.FD)
	}
	return fds
}

// socketOption is an option with its expected value.
type socketOption struct {
	field           string
	level, name, to int
}

// Each option is set on every listening socket of the listener, and an option of connections on
// each connection that a worker accepts, under each policy; without options both have what package
// net sets.
func TestOptions(t *testing.T) {
	set := netactor.SocketOptions{
		KeepAliveIdle: 71 * time.Second, KeepAliveInterval: 6500 * time.Millisecond, KeepAliveCount: 3, Delay: true,
		ReceiveBuffer: 20000, SendBuffer: 30000, DeferAccept: time.Second, FastOpen: 5, FreeBind: true,
	}
	type row struct {
		socketOption
		conns bool // connections have it too
	}
	const socket, tcp = unix.SOL_SOCKET, unix.IPPROTO_TCP
	rows := func(keepAlive, noDelay, idle, interval, count int) []row {
		return []row{
			{socketOption{"KeepAliveIdle", socket, unix.SO_KEEPALIVE, keepAlive}, true},
			{socketOption{"Delay", tcp, unix.TCP_NODELAY, noDelay}, true},
			{socketOption{"KeepAliveIdle", tcp, unix.TCP_KEEPIDLE, idle}, true},
			{socketOption{"KeepAliveInterval", tcp, unix.TCP_KEEPINTVL, interval}, true},
			{socketOption{"KeepAliveCount", tcp, unix.TCP_KEEPCNT, count}, true},
		}
	}
	for _, tt := range []struct {
		name    string
		options netactor.SocketOptions
		rows    []row
	}{
		{"defaults", netactor.SocketOptions{}, append(rows(1, 1, 15, 15, 9),
			row{socketOption{"DeferAccept", tcp, unix.TCP_DEFER_ACCEPT, 0}, false}, row{socketOption{"FreeBind", unix.IPPROTO_IP, unix.IP_FREEBIND, 0}, false})},
		{"all", set, append(rows(1, 0, 71, 7, 3),
			row{socketOption{"ReceiveBuffer", socket, unix.SO_RCVBUF, 40000}, true}, row{socketOption{"SendBuffer", socket, unix.SO_SNDBUF, 60000}, true},
			row{socketOption{"DeferAccept", tcp, unix.TCP_DEFER_ACCEPT, 1}, false}, row{socketOption{"FastOpen", tcp, unix.TCP_FASTOPEN, 5}, false},
			row{socketOption{"FreeBind", unix.IPPROTO_IP, unix.IP_FREEBIND, 1}, false})},
		{"one", netactor.SocketOptions{KeepAliveCount: 4}, rows(1, 1, 15, 15, 4)},
		{"no keep-alive", netactor.SocketOptions{KeepAliveIdle: -1}, rows(0, 1, 0, 0, 0)[:2]},
	} {
		for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.Hash, netactor.Shared, netactor.ReusePort} {
			t.Run(tt.name+"/"+p.String(), func(t *testing.T) {
				tr := newTree(t, false)
				r := loopback
				r.Policy, r.Options, r.Backlog = p, tt.options, 7
				var held []<-chan net.Conn
				for i := range 2 {
					ln := tr.worker(i).mustListen(r)
					r.Address = ln.Addr().String()
					held = append(held, hold(ln))
				}
				if p.Dispatched() {
					tr.joined(2)
				}
				fds := tr.everySocket()
				if want := map[bool]int{true: 2, false: 1}[p == netactor.ReusePort]; len(fds) != want {
					t.Fatalf("%d sockets, want %d", len(fds), want)
				}
				for _, fd := range fds {
					for _, o := range tt.rows {
						if v, err := unix.GetsockoptInt(fd, o.level, o.name); v != o.to || err != nil {
							t.Errorf("listening socket: option %d of %s is %d, %v; want %d", o.name, o.field, v, err, o.to)
						}
					}
					if ti, err := unix.GetsockoptTCPInfo(fd, tcp, unix.TCP_INFO); err != nil || ti.Sacked != 7 {
						t.Errorf("backlog %d, %v", ti.Sacked, err)
					}
				}
				for range 4 {
					c := dial(t, netAddr(r.Address))
					_, _ = io.WriteString(c, "x") // DeferAccept waits for data
					var s net.Conn
					select {
					case s = <-held[0]:
					case s = <-held[1]:
					}
					for _, o := range tt.rows {
						if v := optionOf(t, s, o.level, o.name); o.conns && v != o.to {
							t.Errorf("connection: option %d of %s is %d, want %d", o.name, o.field, v, o.to)
						}
					}
					s.Close()
				}
			})
		}
	}
}

// With DeferAccept a connection is not accepted before its client has sent data, so a peek needs no
// second look.
func TestDeferAccept(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy, r.Peek = netactor.Hash, netactor.Peek{By: netactor.PeekBytes, Bytes: 1, Timeout: time.Minute}
	r.Options = netactor.SocketOptions{DeferAccept: 10 * time.Minute}
	ln := tr.worker(0).mustListen(r)
	tr.joined(1)
	go serveWhat(ln, "0")
	silent := dial(t, ln.Addr())
	for range 10 {
		says(t, ln.Addr().String(), "x\n")
	}
	if c := tr.settled(10).Counts; c.Accepted != 10 || c.Peeking != 0 {
		t.Errorf("%+v", c)
	}
	_, _ = io.WriteString(silent, "y\n")
	if b, err := io.ReadAll(silent); string(b) != "0:y" {
		t.Errorf("answer %q, %v", b, err)
	}
}

// The Listen fails with an error for an invalid option, and names the field.
func TestOptionErrors(t *testing.T) {
	taken, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	f, err := taken.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr := newTree(t, false)
	w := tr.worker(0)
	for _, tt := range []struct {
		r    netactor.Request
		want string
	}{
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{KeepAliveIdle: 10 * time.Hour}}, "KeepAliveIdle"},
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{KeepAliveInterval: -1}}, "KeepAliveInterval"},
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{KeepAliveCount: 128}}, "KeepAliveCount"},
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{KeepAliveIdle: -1, KeepAliveCount: 1}}, "KeepAliveIdle"},
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{ReceiveBuffer: -1}}, "ReceiveBuffer"},
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{SendBuffer: 1 << 31}}, "SendBuffer"},
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{DeferAccept: time.Hour}}, "DeferAccept"},
		{netactor.Request{Network: "tcp", Options: netactor.SocketOptions{FastOpen: -1}}, "FastOpen"},
		{netactor.Request{Network: "unix", Address: "/x", Options: netactor.SocketOptions{Delay: true}}, "are for TCP and UDP"},
		{netactor.Request{FD: 9, Options: netactor.SocketOptions{FreeBind: true}}, "FreeBind and Transparent conflict with FD"},
		{netactor.Request{FD: int(f.Fd()), Options: netactor.SocketOptions{Delay: true}}, "setsockopt Options.Delay: operation not supported"},
		{netactor.Request{Network: "udp", Address: "127.0.0.1:0", Options: netactor.SocketOptions{DeferAccept: 1}}, "setsockopt Options.DeferAccept: operation not supported"},
	} {
		_, err := w.listen(tt.r)
		if address.IsPacket(tt.r.Network) {
			_, err = w.ls.ListenPacket(testContext(t), tt.r)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.r, err, tt.want)
		}
	}
}

// Control is called in the master for each socket that is opened, before it is bound, and again for
// a socket that replaces a broken one. The Listen fails with its error, or with its panic.
func TestControl(t *testing.T) {
	var calls atomic.Int64
	var fail atomic.Pointer[error]
	control := func(network, _ string, c syscall.RawConn) error {
		if e := fail.Load(); e != nil {
			if *e == nil {
				panic("on purpose")
			}
			return *e
		}
		calls.Add(1)
		var err error
		if cerr := c.Control(func(fd uintptr) {
			if sa, serr := unix.Getsockname(int(fd)); serr != nil || network == "tcp4" && sa.(*unix.SockaddrInet4).Port != 0 {
				err = fmt.Errorf("bound already: %v, %w", sa, serr)
				return
			}
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY, 3)
		}); cerr != nil {
			return cerr
		}
		if c.Read(func(uintptr) bool { return true }) == nil || c.Write(func(uintptr) bool { return true }) == nil {
			return errors.New("reads and writes on a listening socket")
		}
		return err
	}
	for _, tt := range []struct {
		r    netactor.Request
		want int64
	}{
		{netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}, 1},
		{netactor.Request{Network: "tcp", Address: "127.0.0.1:0", Policy: netactor.ReusePort}, 2},
		{netactor.Request{Network: "tcp", Address: "127.0.0.1:0", Policy: netactor.Shared}, 1},
		{netactor.Request{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}, 1},
	} {
		t.Run(tt.r.Network+"/"+tt.r.Policy.String(), func(t *testing.T) {
			calls.Store(0)
			fail.Store(nil)
			tr := newTree(t, false, func(tr *tree) {
				tr.tableCfg.Functions = func(path string) netactor.Functions {
					if path != "front" {
						return netactor.Functions{}
					}
					return netactor.Functions{Control: control}
				}
			})
			r := tt.r
			r.Name, r.Functions = "x", "front"
			if _, err := tr.table.Open(testContext(t), "x", r); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				tr.worker(i).mustListen(netactor.Request{Name: "x"})
			}
			if n := calls.Load(); n != tt.want {
				t.Errorf("called %d times, want %d", n, tt.want)
			}
			for _, fd := range tr.everySocket() {
				if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY); v != 3 || err != nil {
					t.Errorf("priority %d, %v", v, err)
				}
			}
			if tt.r.Network != "tcp" {
				return
			}
			other := netactor.Request{Network: "tcp", Address: "127.0.0.2:0", Functions: "front"}
			for _, e := range []struct {
				err  error
				is   syscall.Errno
				want string
			}{
				{syscall.EPERM, syscall.EPERM, "Functions.Control: operation not permitted"},
				{errors.New("the moon is full"), syscall.EINVAL, "Functions.Control: the moon is full"},
				{nil, syscall.EINVAL, "Functions.Control: panic: on purpose"},
			} {
				fail.Store(&e.err)
				_, err := tr.table.Open(testContext(t), "y", other)
				if !errors.Is(err, e.is) || !strings.Contains(err.Error(), e.want) {
					t.Errorf("%v, want %s", err, e.want)
				}
			}
			fail.Store(nil)
			if _, err := tr.table.Open(testContext(t), "y", other); err != nil {
				t.Errorf("after it failed: %v", err)
			}
		})
	}
}

// A worker cannot have Control called, neither for its request nor for a socket that it opened:
// Control is for the listeners that the master opens.
func TestControlNotForWorkers(t *testing.T) {
	tr := newTree(t, false, func(tr *tree) {
		tr.tableCfg.Functions = func(string) netactor.Functions {
			return netactor.Functions{Control: func(network, address string, _ syscall.RawConn) error {
				t.Errorf("called for %s %s", network, address)
				return nil
			}}
		}
	})
	w := tr.worker(0)
	for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.ReusePort} {
		ln := w.mustListen(netactor.Request{Network: "tcp", Address: "127.0.0.1:0", Policy: p, Functions: "front"})
		tr.worker(1).mustListen(netactor.Request{Network: "tcp", Address: ln.Addr().String(), Functions: "front"})
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ls.Share(testContext(t), netactor.Request{Name: "x", Functions: "front"}, ln); err != nil {
		t.Fatal(err)
	}
	for _, s := range tr.table.Sockets() {
		tr.shutDown(s.Number)
		tr.shutDown(s.Number) // once another one is there
	}
	tr.quiet()
}

// A socket that replaces one that was shut down has the options, and Control is called.
func TestOptionsOfRepaired(t *testing.T) {
	var calls atomic.Int64
	tr := newTree(t, false, func(tr *tree) {
		tr.tableCfg.Functions = func(string) netactor.Functions {
			return netactor.Functions{Control: func(string, string, syscall.RawConn) error { calls.Add(1); return nil }}
		}
	})
	path := filepath.Join(t.TempDir(), "s")
	if _, err := tr.table.Open(testContext(t), "x", netactor.Request{Name: "x", Network: "unix", Address: path, Functions: "f"}); err != nil {
		t.Fatal(err)
	}
	ln := tr.worker(0).mustListen(netactor.Request{Name: "x"})
	tr.joined(1)
	go serveID(ln, "ok")
	for _, fd := range tr.everySocket() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	until(t, "another socket", func() bool { return calls.Load() == 2 })
	until(t, "an answer", func() bool { s, err := tryAsk("unix", path); return err == nil && s == "ok" })
}

// A packet socket has the options that are not for TCP, both a Shared socket and the sockets of
// ReusePort.
func TestOptionsOfPackets(t *testing.T) {
	for _, p := range []netactor.Policy{netactor.Shared, netactor.ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := netactor.Request{Network: "udp", Address: "127.0.0.1:0", Policy: p, Options: netactor.SocketOptions{ReceiveBuffer: 20000, SendBuffer: 30000, FreeBind: true}}
			for i := range 2 {
				pc, err := tr.worker(i).ls.ListenPacket(testContext(t), r)
				if err != nil {
					t.Fatal(err)
				}
				r.Address = pc.LocalAddr().String()
			}
			for _, fd := range tr.everySocket() {
				for _, o := range []socketOption{
					{"ReceiveBuffer", unix.SOL_SOCKET, unix.SO_RCVBUF, 40000}, {"SendBuffer", unix.SOL_SOCKET, unix.SO_SNDBUF, 60000}, {"FreeBind", unix.IPPROTO_IP, unix.IP_FREEBIND, 1},
				} {
					if v, err := unix.GetsockoptInt(fd, o.level, o.name); v != o.to || err != nil {
						t.Errorf("%s is %d, %v; want %d", o.field, v, err, o.to)
					}
				}
			}
		})
	}
}
