package netactor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// everySocket are the master's listening sockets.
func (tr *tree) everySocket() (fds []int) {
	tr.table.mu.Lock()
	defer tr.table.mu.Unlock()
	for _, s := range tr.table.sockets {
		fds = append(fds, s.fd)
	}
	return fds
}

// Each option is on every listening socket of the listener, and those of connections on what a worker
// accepts, under each policy; without options both have what package net sets.
func TestOptions(t *testing.T) {
	set := SocketOptions{
		KeepAliveIdle: 71 * time.Second, KeepAliveInterval: 6500 * time.Millisecond, KeepAliveCount: 3, Delay: true,
		ReceiveBuffer: 20000, SendBuffer: 30000, DeferAccept: time.Second, FastOpen: 5, FreeBind: true,
	}
	type row struct {
		option
		conns bool // connections have it too
	}
	const socket, tcp = unix.SOL_SOCKET, unix.IPPROTO_TCP
	rows := func(keepAlive, noDelay, idle, interval, count int) []row {
		return []row{
			{option{"KeepAliveIdle", socket, unix.SO_KEEPALIVE, keepAlive}, true},
			{option{"Delay", tcp, unix.TCP_NODELAY, noDelay}, true},
			{option{"KeepAliveIdle", tcp, unix.TCP_KEEPIDLE, idle}, true},
			{option{"KeepAliveInterval", tcp, unix.TCP_KEEPINTVL, interval}, true},
			{option{"KeepAliveCount", tcp, unix.TCP_KEEPCNT, count}, true},
		}
	}
	for _, tt := range []struct {
		name    string
		options SocketOptions
		rows    []row
	}{
		{"defaults", SocketOptions{}, append(rows(1, 1, 15, 15, 9),
			row{option{"DeferAccept", tcp, unix.TCP_DEFER_ACCEPT, 0}, false}, row{option{"FreeBind", unix.IPPROTO_IP, unix.IP_FREEBIND, 0}, false})},
		{"all", set, append(rows(1, 0, 71, 7, 3),
			row{option{"ReceiveBuffer", socket, unix.SO_RCVBUF, 40000}, true}, row{option{"SendBuffer", socket, unix.SO_SNDBUF, 60000}, true},
			row{option{"DeferAccept", tcp, unix.TCP_DEFER_ACCEPT, 1}, false}, row{option{"FastOpen", tcp, unix.TCP_FASTOPEN, 5}, false},
			row{option{"FreeBind", unix.IPPROTO_IP, unix.IP_FREEBIND, 1}, false})},
		{"one", SocketOptions{KeepAliveCount: 4}, rows(1, 1, 15, 15, 4)},
		{"no keep-alive", SocketOptions{KeepAliveIdle: -1}, rows(0, 1, 0, 0, 0)[:2]},
	} {
		for _, p := range []Policy{RoundRobin, Hash, Shared, ReusePort} {
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
				if want := map[bool]int{true: 2, false: 1}[p == ReusePort]; len(fds) != want {
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
					_, _ = io.WriteString(c, "x") // or it would not be accepted yet
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

// With DeferAccept a connection is not accepted before its client has said something, so that a peek needs no
// second look.
func TestDeferAccept(t *testing.T) {
	tr := newTree(t, false)
	r := loopback
	r.Policy, r.Peek = Hash, Peek{By: PeekBytes, Bytes: 1, Timeout: maxPeekTimeout}
	r.Options = SocketOptions{DeferAccept: maxDeferAccept}
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

// An option that cannot be is the error of the Listen, and names the field.
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
		r    Request
		want string
	}{
		{Request{Network: "tcp", Options: SocketOptions{KeepAliveIdle: 10 * time.Hour}}, "KeepAliveIdle"},
		{Request{Network: "tcp", Options: SocketOptions{KeepAliveInterval: -1}}, "KeepAliveInterval"},
		{Request{Network: "tcp", Options: SocketOptions{KeepAliveCount: 128}}, "KeepAliveCount"},
		{Request{Network: "tcp", Options: SocketOptions{KeepAliveIdle: -1, KeepAliveCount: 1}}, "KeepAliveIdle"},
		{Request{Network: "tcp", Options: SocketOptions{ReceiveBuffer: -1}}, "ReceiveBuffer"},
		{Request{Network: "tcp", Options: SocketOptions{SendBuffer: 1 << 31}}, "SendBuffer"},
		{Request{Network: "tcp", Options: SocketOptions{DeferAccept: time.Hour}}, "DeferAccept"},
		{Request{Network: "tcp", Options: SocketOptions{FastOpen: -1}}, "FastOpen"},
		{Request{Network: "unix", Address: "/x", Options: SocketOptions{Delay: true}}, "are for TCP and UDP"},
		{Request{FD: 9, Options: SocketOptions{FreeBind: true}}, "FreeBind and Transparent conflict with FD"},
		{Request{FD: int(f.Fd()), Options: SocketOptions{Delay: true}}, "setsockopt Options.Delay: operation not supported"},
		{Request{Network: "udp", Address: "127.0.0.1:0", Options: SocketOptions{DeferAccept: 1}}, "setsockopt Options.DeferAccept: operation not supported"},
	} {
		_, err := w.listen(tt.r)
		if packet(tt.r.Network) {
			_, err = w.ls.ListenPacket(testContext(t), tt.r)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.r, err, tt.want)
		}
	}
}

// What the kernel refuses is an error that names the field.
func TestOptionRefused(t *testing.T) {
	got := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with this thread, which has lost its capabilities
		h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capset(&h, &data[0]); err != nil {
			got <- err
			return
		}
		s, err := newSocket(socketSpec{Request: Request{Network: "tcp4", Address: "127.0.0.1:0", Options: SocketOptions{Transparent: true}}})
		if err == nil {
			s.close()
		}
		got <- err
	}()
	err := <-got
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "setsockopt Options.Transparent: ") {
		t.Errorf("transparent without the right to: %v", err)
	}
}

// Control is called in the master for each socket that is opened, before it is bound; and again for one that takes
// the place of a broken one. Its error, and its panic, is that of the Listen.
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
		r    Request
		want int64
	}{
		{Request{Network: "tcp", Address: "127.0.0.1:0"}, 1},
		{Request{Network: "tcp", Address: "127.0.0.1:0", Policy: ReusePort}, 2},
		{Request{Network: "tcp", Address: "127.0.0.1:0", Policy: Shared}, 1},
		{Request{Network: "unix", Address: filepath.Join(t.TempDir(), "s")}, 1},
	} {
		t.Run(tt.r.Network+"/"+tt.r.Policy.String(), func(t *testing.T) {
			calls.Store(0)
			fail.Store(nil)
			tr := newTree(t, false, func(tr *tree) {
				tr.tableCfg.Functions = func(path string) Functions {
					if path != "front" {
						return Functions{}
					}
					return Functions{Control: control}
				}
			})
			r := tt.r
			r.Name, r.Functions = "x", "front"
			if _, err := tr.table.Open(testContext(t), "x", r); err != nil {
				t.Fatal(err)
			}
			for i := range 2 {
				tr.worker(i).mustListen(Request{Name: "x"})
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
			other := Request{Network: "tcp", Address: "127.0.0.2:0", Functions: "front"}
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

// A worker cannot have a Control called, neither for what it asks for nor for a socket that it opened: Control is of
// the listeners that the master opens by itself.
func TestControlNotForWorkers(t *testing.T) {
	tr := newTree(t, false, func(tr *tree) {
		tr.tableCfg.Functions = func(string) Functions {
			return Functions{Control: func(network, address string, _ syscall.RawConn) error {
				t.Errorf("called for %s %s", network, address)
				return nil
			}}
		}
	})
	w := tr.worker(0)
	for _, p := range []Policy{RoundRobin, ReusePort} {
		ln := w.mustListen(Request{Network: "tcp", Address: "127.0.0.1:0", Policy: p, Functions: "front"})
		tr.worker(1).mustListen(Request{Network: "tcp", Address: ln.Addr().String(), Functions: "front"})
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.ls.Share(testContext(t), Request{Name: "x", Functions: "front"}, ln); err != nil {
		t.Fatal(err)
	}
	for _, s := range tr.table.Sockets() {
		tr.shutDown(socketKey{s.Number, 0})
		tr.shutDown(socketKey{s.Number, 0}) // once another one is there
	}
	tr.quiet()
}

// A socket that takes the place of one that was shut down has the options, and Control is asked.
func TestOptionsOfRepaired(t *testing.T) {
	var calls atomic.Int64
	tr := newTree(t, false, func(tr *tree) {
		tr.tableCfg.Functions = func(string) Functions {
			return Functions{Control: func(string, string, syscall.RawConn) error { calls.Add(1); return nil }}
		}
	})
	path := filepath.Join(t.TempDir(), "s")
	if _, err := tr.table.Open(testContext(t), "x", Request{Name: "x", Network: "unix", Address: path, Functions: "f"}); err != nil {
		t.Fatal(err)
	}
	ln := tr.worker(0).mustListen(Request{Name: "x"})
	tr.joined(1)
	go serveID(ln, "ok")
	for _, fd := range tr.everySocket() {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	until(t, "another socket", func() bool { return calls.Load() == 2 })
	until(t, "an answer", func() bool { s, err := tryAsk("unix", path); return err == nil && s == "ok" })
}

// A packet socket has the options that are not TCP's, with a Shared socket and with one for each worker.
func TestOptionsOfPackets(t *testing.T) {
	for _, p := range []Policy{Shared, ReusePort} {
		t.Run(p.String(), func(t *testing.T) {
			tr := newTree(t, false)
			r := Request{Network: "udp", Address: "127.0.0.1:0", Policy: p, Options: SocketOptions{ReceiveBuffer: 20000, SendBuffer: 30000, FreeBind: true}}
			for i := range 2 {
				pc, err := tr.worker(i).ls.ListenPacket(testContext(t), r)
				if err != nil {
					t.Fatal(err)
				}
				r.Address = pc.LocalAddr().String()
			}
			for _, fd := range tr.everySocket() {
				for _, o := range []option{
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
