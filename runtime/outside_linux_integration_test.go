//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["sockets of systemd's"] = func() coppice.Config {
		if !coppice.IsChild() {
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // as systemd does, between fork and exec
		}
		return outside([]coppice.ListenerSpec{
			{Name: "tcp", SystemdName: "web", Options: coppice.SocketOptions{KeepAliveIdle: 71 * time.Second}},
			{Name: "shared", SystemdName: "web:1", Policy: coppice.Shared, Options: coppice.SocketOptions{KeepAliveIdle: 71 * time.Second}},
			{Name: "unix", SystemdName: "admin"},
			{Name: "shared-unix", SystemdName: "admin:1", Policy: coppice.Shared},
		})
	}
	trees["descriptors of the master's"] = func() coppice.Config {
		var listeners []coppice.ListenerSpec
		for i, s := range strings.Fields(os.Getenv("COPPICE_TEST_FDS")) {
			fd, _ := strconv.Atoi(s)
			policy := []coppice.Policy{coppice.RoundRobin, coppice.Shared, coppice.LeastLoaded}[i]
			listeners = append(listeners, coppice.ListenerSpec{Name: policy.String(), FD: fd, Policy: policy})
		}
		return outside(listeners)
	}
}

// outside is a tree of listeners and of two workers that answer each connection with the listener's
// name and what keep-alive it has.
func outside(listeners []coppice.ListenerSpec) coppice.Config {
	var children []coppice.ChildSpec
	for _, l := range listeners {
		children = append(children, l)
	}
	return coppice.Config{Children: append(children, coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
		for _, l := range listeners {
			ln, err := w.Listener(ctx, l.Name)
			if err != nil {
				return err
			}
			go answerName(ln, l.Name)
		}
		if err := w.Ready(); err != nil {
			return err
		}
		fmt.Println("ready to answer")
		<-ctx.Done()
		return nil
	}})}
}

func answerName(ln net.Listener, name string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		idle := 0
		if rc, err := c.(syscall.Conn).SyscallConn(); err == nil {
			_ = rc.Control(func(fd uintptr) { idle, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE) })
		}
		_, _ = fmt.Fprint(c, name, " ", idle)
		_ = c.Close()
	}
}

// listening opens sockets as another program does, and leaves them blocking.
func listening(t *testing.T, addrs ...net.Addr) (files []*os.File, at []net.Addr) {
	t.Helper()
	for _, a := range addrs {
		ln, err := net.Listen(a.Network(), a.String())
		if err != nil {
			t.Fatal(err)
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		f, err := ln.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
			t.Fatal(err)
		}
		files, at = append(files, f), append(at, ln.Addr())
		ln.Close()
	}
	return files, at
}

var anyTCP = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}

func unixAt(t *testing.T) *net.UnixAddr {
	return &net.UnixAddr{Net: "unix", Name: filepath.Join(t.TempDir(), "s")}
}

// answered connects and reads to the end.
func answered(t *testing.T, a net.Addr) string {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestActivationRestart is P21 for TCP and Unix sockets, each by its name, two of a name, handed
// over and shared: all are served, with the options that the tree asks for. The program ends, and
// no client is refused until the next start, which answers the clients that came in between. Only
// systemd may remove the paths.
func TestActivationRestart(t *testing.T) {
	path, shared := unixAt(t), unixAt(t)
	files, at := listening(t, anyTCP, path, anyTCP, shared)
	want := []string{"tcp 71", "unix 0", "shared 71", "shared-unix 0"}
	start := func() *runtimetest.Program {
		return runtimetest.StartWith(t, []string{treeVar + "=sockets of systemd's", "LISTEN_FDS=4", "LISTEN_FDNAMES=web:admin:web:admin"}, files)
	}
	p := start()
	p.Await("ready to answer") // options apply to connections that arrive after they are set
	for range 4 {
		for i, a := range at {
			if got := answered(t, a); got != want[i] {
				t.Errorf("%v: %q, want %q", a, got, want[i])
			}
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	answers := make(chan string, len(at))
	for i, a := range at {
		c, err := net.Dial(a.Network(), a.String()) // is in the backlog now
		if err != nil {
			t.Fatalf("refused between two starts: %v", err)
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
			b, err := io.ReadAll(c)
			if string(b) == want[i] && err == nil {
				b = nil
			}
			answers <- string(b) + errorText(err)
		}()
	}
	p = start()
	for range at {
		if s := <-answers; s != "" {
			t.Errorf("a client that came between two starts got %q", s)
		}
	}
	for i, a := range at {
		if got := answered(t, a); got != want[i] {
			t.Errorf("%v, after the restart: %q, want %q", a, got, want[i])
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, a := range []*net.UnixAddr{path, shared} {
		if _, err := os.Lstat(a.Name); err != nil {
			t.Errorf("the path was removed: %v", err)
		}
	}
}

// TestMasterUnixDescriptor: Unix sockets that the master has by number are served, handed over and
// shared. A kill of a worker and of the listener process refuses no client. At the end the master's
// descriptors are still open, and their paths exist.
func TestMasterUnixDescriptor(t *testing.T) {
	files, at := listening(t, unixAt(t), unixAt(t), unixAt(t))
	var fds []string
	for i, f := range files {
		fd := 211 + i // as good as 7, which the test binary may be using itself
		if err := unix.Dup3(int(f.Fd()), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); v != 1 || err != nil {
				t.Errorf("descriptor %d does not listen any more: %d, %v", fd, v, err)
			}
			unix.Close(fd)
		})
		fds = append(fds, strconv.Itoa(fd))
	}
	t.Setenv("COPPICE_TEST_FDS", strings.Join(fds, " "))
	p := startTree(t, "descriptors of the master's")
	ask := func() {
		t.Helper()
		for range 3 {
			for i, name := range []string{"round-robin 0", "shared 0", "least-loaded 0"} {
				if got := answered(t, at[i]); got != name {
					t.Errorf("%v: %q, want %q", at[i], got, name)
				}
			}
		}
	}
	ask()
	for _, name := range []string{"web/0", "listener", "web/1"} {
		if err := syscall.Kill(p.pid(name), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ask()
	}
	for i, l := range p.Listeners() {
		if l.Addr.String() != at[i].String() || l.Addr.Network() != "unix" {
			t.Errorf("%s is at %v, want %v", l.Name, l.Addr, at[i])
		}
	}
	t.Cleanup(func() { // after the tree's end
		for _, a := range at {
			if _, err := os.Lstat(a.String()); err != nil {
				t.Errorf("the path was removed: %v", err)
			}
		}
	})
}
