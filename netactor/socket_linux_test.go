package netactor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// opened opens the socket of r and closes it at the end.
func opened(t *testing.T, r Request) *socket {
	t.Helper()
	return openedSpec(t, socketSpec{Request: r})
}

func openedSpec(t *testing.T, r socketSpec) *socket {
	t.Helper()
	var err error
	r.Request, err = resolve(context.Background(), r.Request)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSocket(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.fd >= 0 {
			s.close()
		}
	})
	return s
}

func (s *socket) where(t *testing.T) string {
	t.Helper()
	_, address, err := s.address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(p)
	return n
}

// connects dials and closes.
func connects(network, address string) error {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

func TestSocketOptions(t *testing.T) {
	s := opened(t, Request{Network: "tcp", Address: "127.0.0.1:0"})
	fl, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
	if err != nil || fl&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v: not non-blocking", fl, err)
	}
	if fl, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
		t.Errorf("descriptor flags %#x, %v: not close-on-exec", fl, err)
	}
	for _, o := range []struct {
		name             string
		level, opt, want int
	}{
		{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15},
	} {
		if v, err := unix.GetsockoptInt(s.fd, o.level, o.opt); v != o.want || err != nil {
			t.Errorf("%s = %d, %v; want %d", o.name, v, err, o.want)
		}
	}
}

// N39: the backlog reaches the kernel. Of a listening socket tcpi_sacked is the
// length of the accept queue that listen(2) asked for.
func TestSocketBacklogN39(t *testing.T) {
	for _, tt := range []struct{ asked, want int }{{5, 5}, {0, maxBacklog()}} {
		s := opened(t, Request{Network: "tcp", Address: "127.0.0.1:0", Backlog: tt.asked})
		ti, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || int(ti.Sacked) != tt.want {
			t.Errorf("backlog %d, %v; want %d", ti.Sacked, err, tt.want)
		}
	}
}

func TestSocketErrors(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		r    Request
		call string
		want syscall.Errno
	}{
		{"N5 N33 taken port", Request{Network: "tcp", Address: taken.Addr().String()}, "bind", syscall.EADDRINUSE},
		{"address of another host", Request{Network: "tcp", Address: "203.0.113.1:0"}, "bind", syscall.EADDRNOTAVAIL},
		{"N100 no such descriptor", Request{FD: 1 << 19}, "listen", syscall.EINVAL},
		{"N100 not a socket", Request{FD: int(file.Fd())}, "listen", syscall.EINVAL},
		{"path is a plain file", Request{Network: "unix", Address: plain}, "bind: the path is that of a regular file", syscall.EADDRINUSE},
		{"no such directory", Request{Network: "unix", Address: dir + "/no/such"}, "bind", syscall.ENOENT},
	} {
		r, err := resolve(context.Background(), tt.r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = newSocket(socketSpec{Request: r})
		sys, ok := errors.AsType[*os.SyscallError](err)
		if !ok || sys.Syscall != tt.call || !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %s: %v", tt.name, err, tt.call, tt.want)
		}
	}
}

// N4, N68: a privileged port is EACCES.
func TestSocketPrivilegedPortN4(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if os.Geteuid() == 0 || err != nil || strings.TrimSpace(string(b)) == "0" {
		t.Skip("needs an ordinary user")
	}
	_, err = newSocket(socketSpec{Request: Request{Network: "tcp4", Address: "127.0.0.1:42"}})
	if !errors.Is(err, syscall.EACCES) {
		t.Errorf("%v, want EACCES", err)
	}
}

// N40, N85, N86: "tcp" is dual stack, "tcp6" is IPv6 alone.
func TestSocketIPv6Only(t *testing.T) {
	if err := func() error {
		ln, err := net.Listen("tcp6", "[::1]:0")
		if err == nil {
			ln.Close()
		}
		return err
	}(); err != nil {
		t.Skip("needs IPv6:", err)
	}
	s := opened(t, Request{Network: "tcp", Address: ":0"})
	port := portOf(t, s.where(t))
	if err := connects("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Errorf("dual stack by IPv4: %v", err)
	}
	six := opened(t, Request{Network: "tcp6", Address: ":0"})
	port = portOf(t, six.where(t))
	if err := connects("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("IPv6 alone by IPv4: %v", err)
	}
	opened(t, Request{Network: "tcp4", Address: fmt.Sprintf("0.0.0.0:%d", port)}) // is free
}

func TestSocketUnix(t *testing.T) {
	dir := t.TempDir()
	t.Run("N36 X8 mode bits", func(t *testing.T) {
		path := filepath.Join(dir, "mode")
		opened(t, Request{Network: "unix", Address: path, Mode: 0o707})
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o707 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
	})
	t.Run("path is removed at the end", func(t *testing.T) {
		path := filepath.Join(dir, "gone")
		s := opened(t, Request{Network: "unix", Address: path})
		s.close()
		s.fd = -1
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	})
	t.Run("a path that is another's by now is left alone", func(t *testing.T) {
		path := filepath.Join(dir, "replaced")
		s := opened(t, Request{Network: "unix", Address: path})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		opened(t, Request{Network: "unix", Address: path})
		s.close()
		s.fd = -1
		if err := connects("unix", path); err != nil {
			t.Error(err)
		}
	})
	t.Run("stale path is replaced", func(t *testing.T) {
		path := filepath.Join(dir, "stale")
		s := opened(t, Request{Network: "unix", Address: path})
		s.file.ino = 0 // as a crash leaves it
		s.close()
		s.fd = -1
		opened(t, Request{Network: "unix", Address: path})
		if err := connects("unix", path); err != nil {
			t.Error(err)
		}
	})
	t.Run("N26 a path in use is EADDRINUSE", func(t *testing.T) {
		path := filepath.Join(dir, "used")
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if _, err := newSocket(socketSpec{Request: Request{Network: "unix", Address: path}}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v", err)
		}
	})
	t.Run("N41 a long path", func(t *testing.T) {
		deep := filepath.Join(dir, strings.Repeat("d", 80), strings.Repeat("e", 80))
		if err := os.MkdirAll(deep, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(deep, "sock")
		s := opened(t, Request{Network: "unix", Address: path})
		t.Chdir(deep)
		if err := connects("unix", "sock"); err != nil {
			t.Error(err)
		}
		s.close()
		s.fd = -1
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	})
	t.Run("abstract", func(t *testing.T) {
		name := fmt.Sprintf("@coppice-test-%d", os.Getpid())
		s := opened(t, Request{Network: "unix", Address: name})
		if got := s.where(t); got != name {
			t.Errorf("address %q", got)
		}
		if err := connects("unix", name); err != nil {
			t.Error(err)
		}
	})
}

// N96, Shows 9: FD is the number of a listening socket of this process; what is
// opened is a duplicate of it.
func TestSocketFD(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var s *socket
	_ = rc.Control(func(fd uintptr) { s = opened(t, Request{FD: int(fd)}) })
	if got := s.where(t); got != ln.Addr().String() {
		t.Errorf("address %s, want %s", got, ln.Addr())
	}
	ln.Close()
	if err := connects("tcp", s.where(t)); err != nil {
		t.Errorf("after the original was closed: %v", err)
	}
}

// source with faults: the system call is replaced.

func newTestSource(t *testing.T) (*acceptSocket, string) {
	t.Helper()
	s := opened(t, Request{Network: "tcp", Address: "127.0.0.1:0"})
	h, err := s.handle()
	if err != nil {
		t.Fatal(err)
	}
	src, err := newAcceptSocket(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.close)
	return src, s.where(t)
}

func TestSourceAccept(t *testing.T) {
	room := func(n int) func() int { return func() int { return n } }
	t.Run("takes no more than there is room for", func(t *testing.T) {
		src, addr := newTestSource(t)
		var clients []net.Conn
		for range 5 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients = append(clients, c)
		}
		got := make([]acceptedConn, 64)
		n, err := src.accept(room(3), got)
		if n != 3 || err != nil {
			t.Fatalf("took %d, %v", n, err)
		}
		if want := clients[0].LocalAddr().String(); got[0].peer.String() != want {
			t.Errorf("peer %s, want %s", got[0].peer, want)
		}
		if n, err := src.accept(room(0), got[3:]); n != 0 || err != errNoRoom {
			t.Fatalf("took %d, %v", n, err)
		}
		src.interrupt()
		m, err := src.accept(room(64), got[3:])
		if m != 2 || err != nil {
			t.Fatalf("took %d, %v", m, err)
		}
		if n, err := src.accept(room(64), got[5:]); n != 0 || err != errDrained {
			t.Fatalf("took %d, %v", n, err)
		}
		for _, a := range got[:5] {
			a.h.Close()
		}
	})
	t.Run("errors leave the connection in the backlog", func(t *testing.T) {
		src, addr := newTestSource(t)
		fail := []error{unix.EINTR, unix.EMFILE, unix.ECONNABORTED}
		src.accept4 = func(fd int, sa *unix.RawSockaddrAny) (int, error) {
			if len(fail) > 0 {
				err := fail[0]
				fail = fail[1:]
				return -1, err
			}
			return rawAccept4(fd, sa)
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := make([]acceptedConn, 64)
		if n, err := src.accept(room(64), got); n != 0 || !isShortage(err) {
			t.Fatalf("took %d, %v", n, err)
		}
		if n, err := src.accept(room(64), got); n != 0 || err != unix.ECONNABORTED || isShortage(err) || broken(err) {
			t.Fatalf("took %d, %v", n, err)
		}
		n, err := src.accept(room(64), got)
		if n != 1 || err != nil {
			t.Fatalf("took %d, %v", n, err)
		}
		got[0].h.Close()
	})
	t.Run("a socket that was shut down is broken", func(t *testing.T) {
		src, _ := newTestSource(t)
		_ = src.rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		if n, err := src.accept(room(64), make([]acceptedConn, 64)); n != 0 || !broken(err) {
			t.Errorf("took %d, %v", n, err)
		}
	})
	t.Run("not a listening socket", func(t *testing.T) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		h := mustHandle(t, f)
		if _, err := newAcceptSocket(h); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%v", err)
		}
	})
}

func TestClientReset(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := func() (net.Conn, *net.TCPConn, *pendingConn) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		tk := new(pendingConn)
		rc, _ := s.(*net.TCPConn).SyscallConn()
		_ = rc.Control(func(fd uintptr) { tk.fd = int(fd) })
		return s, c.(*net.TCPConn), tk
	}
	s, c, tk := accepted()
	if clientReset(tk) {
		t.Error("reset while it lives")
	}
	_ = c.CloseWrite() // still waits for an answer
	_, _ = io.ReadAll(s)
	if clientReset(tk) {
		t.Error("reset while it is half open")
	}
	_ = c.SetLinger(0)
	c.Close()
	until(t, "the reset to be seen", func() bool { return clientReset(tk) })
	s.Close()
}

// failNext lets the next n calls of accept4 fail for want of descriptors.
func failNext(src *acceptSocket, n int) {
	real := src.accept4
	src.accept4 = func(fd int, sa *unix.RawSockaddrAny) (int, error) {
		if n > 0 {
			n--
			return -1, unix.EMFILE
		}
		return real(fd, sa)
	}
}

// TestErrorsNameWhatWasAsked: what a worker is told of a descriptor or an address that cannot be
// had says which, and why, and not only that an argument is invalid.
func TestErrorsNameWhatWasAsked(t *testing.T) {
	for want, r := range map[string]Request{
		"listen: descriptor 524288 is not open: listen: invalid argument":                                         {FD: 1 << 19},
		"listen: descriptor 524288 is not open: listen: invalid argument ":                                        {FD: 1 << 19, Packet: true},
		"listen tcp: bind: zone \"nowhere0\": route ip+net: no such network interface: invalid argument":          {Network: "tcp", Address: "[fe80::1%nowhere0]:0"},
		"listen unix: bind: the path is not absolute and clean: invalid argument":                                 {Network: "unix", Address: "/a/../b"},
		"listen: it is no listening socket of TCP or Unix: listen: invalid argument":                              {FD: 1},
		"listen: it is no packet socket of UDP or Unix that is bound and not connected: listen: invalid argument": {FD: 1, Packet: true},
	} {
		_, err := newSocket(socketSpec{Request: r})
		if err == nil {
			t.Fatalf("%+v is had", r)
		}
		if got := failed(err).err(r.Network, nil); got.Error() != strings.TrimSpace(want) || !errors.Is(got, syscall.EINVAL) {
			t.Errorf("%+v: %v, want %s", r, got, want)
		}
	}
}
