package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// opened opens the socket of r and closes it at the end.
func opened(t *testing.T, r netactor.Request) *Bound {
	t.Helper()
	return openedSpec(t, SocketSpec{Request: r})
}

func openedSpec(t *testing.T, r SocketSpec) *Bound {
	t.Helper()
	var err error
	r.Request, err = wire.Resolve(context.Background(), r.Request)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.fd >= 0 {
			s.Close()
		}
	})
	return s
}

func (s *Bound) where(t *testing.T) string {
	t.Helper()
	_, address, err := s.Address()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func TestSocketOptions(t *testing.T) {
	s := opened(t, netactor.Request{Network: "tcp", Address: "127.0.0.1:0"})
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
		s := opened(t, netactor.Request{Network: "tcp", Address: "127.0.0.1:0", Backlog: tt.asked})
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
		r    netactor.Request
		call string
		want syscall.Errno
	}{
		{"N5 N33 taken port", netactor.Request{Network: "tcp", Address: taken.Addr().String()}, "bind", syscall.EADDRINUSE},
		{"address of another host", netactor.Request{Network: "tcp", Address: "203.0.113.1:0"}, "bind", syscall.EADDRNOTAVAIL},
		{"N100 no such descriptor", netactor.Request{FD: 1 << 19}, "listen", syscall.EINVAL},
		{"N100 not a socket", netactor.Request{FD: int(file.Fd())}, "listen", syscall.EINVAL},
		{"path is a plain file", netactor.Request{Network: "unix", Address: plain}, "bind: the path is that of a regular file", syscall.EADDRINUSE},
		{"no such directory", netactor.Request{Network: "unix", Address: dir + "/no/such"}, "bind", syscall.ENOENT},
	} {
		r, err := wire.Resolve(context.Background(), tt.r)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Open(SocketSpec{Request: r})
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
	_, err = Open(SocketSpec{Request: netactor.Request{Network: "tcp4", Address: "127.0.0.1:42"}})
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
	s := opened(t, netactor.Request{Network: "tcp", Address: ":0"})
	port := portOf(t, s.where(t))
	if err := connects("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
		t.Errorf("dual stack by IPv4: %v", err)
	}
	six := opened(t, netactor.Request{Network: "tcp6", Address: ":0"})
	port = portOf(t, six.where(t))
	if err := connects("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("IPv6 alone by IPv4: %v", err)
	}
	opened(t, netactor.Request{Network: "tcp4", Address: fmt.Sprintf("0.0.0.0:%d", port)}) // is free
}

func TestSocketUnix(t *testing.T) {
	dir := t.TempDir()
	t.Run("N36 X8 mode bits", func(t *testing.T) {
		path := filepath.Join(dir, "mode")
		opened(t, netactor.Request{Network: "unix", Address: path, Mode: 0o707})
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o707 {
			t.Errorf("%v, %v", fi.Mode(), err)
		}
	})
	t.Run("path is removed at the end", func(t *testing.T) {
		path := filepath.Join(dir, "gone")
		s := opened(t, netactor.Request{Network: "unix", Address: path})
		s.Close()
		s.fd = -1
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	})
	t.Run("a path that is another's by now is left alone", func(t *testing.T) {
		path := filepath.Join(dir, "replaced")
		s := opened(t, netactor.Request{Network: "unix", Address: path})
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		opened(t, netactor.Request{Network: "unix", Address: path})
		s.Close()
		s.fd = -1
		if err := connects("unix", path); err != nil {
			t.Error(err)
		}
	})
	t.Run("stale path is replaced", func(t *testing.T) {
		path := filepath.Join(dir, "stale")
		s := opened(t, netactor.Request{Network: "unix", Address: path})
		s.file.ino = 0 // as a crash leaves it
		s.Close()
		s.fd = -1
		opened(t, netactor.Request{Network: "unix", Address: path})
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
		if _, err := Open(SocketSpec{Request: netactor.Request{Network: "unix", Address: path}}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%v", err)
		}
	})
	t.Run("N41 a long path", func(t *testing.T) {
		deep := filepath.Join(dir, strings.Repeat("d", 80), strings.Repeat("e", 80))
		if err := os.MkdirAll(deep, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(deep, "sock")
		s := opened(t, netactor.Request{Network: "unix", Address: path})
		t.Chdir(deep)
		if err := connects("unix", "sock"); err != nil {
			t.Error(err)
		}
		s.Close()
		s.fd = -1
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	})
	t.Run("abstract", func(t *testing.T) {
		name := fmt.Sprintf("@coppice-test-%d", os.Getpid())
		s := opened(t, netactor.Request{Network: "unix", Address: name})
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
	var s *Bound
	_ = rc.Control(func(fd uintptr) { s = opened(t, netactor.Request{FD: int(fd)}) })
	if got := s.where(t); got != ln.Addr().String() {
		t.Errorf("address %s, want %s", got, ln.Addr())
	}
	ln.Close()
	if err := connects("tcp", s.where(t)); err != nil {
		t.Errorf("after the original was closed: %v", err)
	}
}

// source with faults: the system call is replaced.

// TestErrorsNameWhatWasAsked: the error for a descriptor or an address that a worker cannot get
// names it and the reason, not only that an argument is invalid.
func TestErrorsNameWhatWasAsked(t *testing.T) {
	for want, r := range map[string]netactor.Request{
		"listen: descriptor 524288 is not open: listen: invalid argument":                                         {FD: 1 << 19},
		"listen: descriptor 524288 is not open: listen: invalid argument ":                                        {FD: 1 << 19, Packet: true},
		"listen tcp: bind: zone \"nowhere0\": route ip+net: no such network interface: invalid argument":          {Network: "tcp", Address: "[fe80::1%nowhere0]:0"},
		"listen unix: bind: the path is not absolute and clean: invalid argument":                                 {Network: "unix", Address: "/a/../b"},
		"listen: it is no listening socket of TCP or Unix: listen: invalid argument":                              {FD: 1},
		"listen: it is no packet socket of UDP or Unix that is bound and not connected: listen: invalid argument": {FD: 1, Packet: true},
	} {
		_, err := Open(SocketSpec{Request: r})
		if err == nil {
			t.Fatalf("%+v is had", r)
		}
		if got := wire.Failed(err).Err(r.Network, nil); got.Error() != strings.TrimSpace(want) || !errors.Is(got, syscall.EINVAL) {
			t.Errorf("%+v: %v, want %s", r, got, want)
		}
	}
}

// If the kernel refuses an option, the error names the field.
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
		s, err := Open(SocketSpec{Request: netactor.Request{Network: "tcp4", Address: "127.0.0.1:0", Options: netactor.SocketOptions{Transparent: true}}})
		if err == nil {
			s.Close()
		}
		got <- err
	}()
	err := <-got
	if !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), "setsockopt Options.Transparent: ") {
		t.Errorf("transparent without the right to: %v", err)
	}
}
